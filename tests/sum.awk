# Sums up meson's testlog.json, one test a line; tests/run says what counts.
#   -v left=1    something was left behind    -v code=N    meson's exit status
# The last line is "N passed, N failed, N skipped"; exits 1 if anything failed.

# The string behind "key": as JSON has it, still escaped.
function text_of(key,    start, rest) {
    start = index($0, "\"" key "\": \"")
    if (!start)
        return ""
    rest = substr($0, start + length(key) + 5)
    match(rest, /^([^"\\]|\\.)*/)
    return substr(rest, 1, RLENGTH)
}

function report(kind, name, why) {
    printf "%-8s %s%s\n", kind, name, why == "" ? "" : ": " why
}

# Counts what the output of a test names; reports its skipped and failed cases.
function count_cases(name, output,    lines, n, i, line, words) {
    n = split(output, lines, /\\n/)
    for (i = 1; i <= n; i++) {
        line = lines[i]
        if (line ~ /^ *not ok /) {
            case_failed++
            report("failed", name, substr(line, index(line, "not ok") + 7))
        } else if (line ~ /^ *ok .*# *[Ss][Kk][Ii][Pp]/) {
            case_skipped++
            report("skipped", name, substr(line, index(line, "ok") + 3))
        } else if (line ~ /^ *ok /) {
            case_passed++
        } else if (match(line, /^[0-9]+%: Checks: [0-9]+, Failures: [0-9]+, Errors: [0-9]+/)) {
            split(line, words, /[:,] */)
            case_failed += words[5] + words[7]
            case_passed += words[3] - words[5] - words[7]
        }
    }
}

# The last line that a skipped test wrote says why.
function reason(output,    lines, n) {
    n = split(output, lines, /\\n/)
    while (n > 0 && lines[n] ~ /^[ \t]*$/)
        n--
    return n > 0 ? lines[n] : "no reason given"
}

{
    name = text_of("name")
    result = text_of("result")
    output = text_of("stdout")
    case_passed = case_failed = case_skipped = 0
    count_cases(name, output)
    if (result == "SKIP" && case_skipped == 0) {
        case_skipped = 1
        report("skipped", name, reason(output text_of("stderr")))
    } else if (result != "OK" && result != "SKIP" && result != "EXPECTEDFAIL" && case_failed == 0) {
        case_failed = 1
        report("failed", name, tolower(result))
    } else if (case_passed + case_failed + case_skipped == 0) {
        case_passed = 1
    }
    passed += case_passed
    failed += case_failed
    skipped += case_skipped
    tests++
}

END {
    if (left == "1") {
        failed++
        report("failed", "nothing is left behind", "see above")
    } else {
        passed++
    }
    if (code != 0 && failed == 0) {
        failed = 1
        report("failed", "meson test", "exit status " code)
    }
    printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
    exit failed > 0
}
