/* Prints docs/settings.md from the table of settings:  settings_document > docs/settings.md */
#include "base/settings.h"

int main(void)
{
    settings_document(stdout);
    return ferror(stdout) || fflush(stdout) ? 1 : 0;
}
