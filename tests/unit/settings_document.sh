#!/bin/sh
# The page of settings says what the table says.
# usage: settings_document.sh PROGRAM PAGE   exit: 0 the same, 1 not
set -eu

if "$1" | diff -u "$2" -; then
    exit 0
fi
echo "docs/settings.md is not what the table says; run: $1 > $2" >&2
exit 1
