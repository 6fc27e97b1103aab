# shellcheck shell=bash disable=SC2016,SC2034
# Documents, --help, man pages and completion say what the code says: lists are compared, names are looked up.

lists() # as tests/lib/doc_lists.py
{
    (cd "$ROOT" && python3 tests/lib/doc_lists.py "$@")
}

# The lines of two lists that are not in both.
assert_same_list() # FILE FILE WHAT
{
    diff "$1" "$2" >"$T/.diff" || fail "$3 (< there only, > in the other list only): $(grep '^[<>]' "$T/.diff" | paste -sd ' ')"
}

completion() # FUNCTION PROGRAM...
{
    # shellcheck disable=SC2016
    bash -c 'source "$ROOT/mount/completion/walefs"; "$@"' bash "$@" | sort
}

test_man_pages_are_sound()
{
    mandoc -T lint -W warning "$ROOT"/mount/*.8
}

# ---- claims and their tests ------------------------------------------------------------------------------

# The names of all tests, as semantics.md writes them.
all_tests()
{
    "$ROOT/tests/run" -l
    (cd "$ROOT/tests/unit" && printf 'unit.%s\n' test_*.c | sed 's/\.c$//')
    sed -n 's/^\([a-z]*\):.*/make \1/p' "$ROOT/Makefile"
}

# What is wrong with the claims in a document: one without a test, a test that is not there.
wrong_claims() # FILE
{
    local name regex
    while read -r name; do
        regex=${name//./[.]}
        if [[ $name == '?'* ]]; then
            echo "$name"
        elif ! grep -qxE -- "${regex//'*'/.*}" "$T/tests"; then
            echo "$name does not exist"
        fi
    done < <(lists claims "$1")
}

test_claims_name_their_tests()
{
    all_tests >"$T/tests"
    (($(lists claims mount/docs/semantics.md | wc -l) > 100)) || fail "where are the claims?"
    assert_eq "$(wrong_claims mount/docs/semantics.md)" "" "semantics.md"
    # and this check can fail
    cat >"$T/wrong.md" <<'END'
| claim | tests |
| --- | --- |
| a | `docs.claims_*`, `make fuzz` |
| b | `docs.no_such`, `unit.test_err` |
| c | none |
| d | `unit.test_no*such` |
END
    assert_eq "$(wrong_claims "$T/wrong.md")" "?| c | none |
docs.no_such does not exist
unit.test_no*such does not exist" "claims that are wrong"
}

# ---- options and variables -------------------------------------------------------------------------------

# What settings.c knows is what --help, man page and completion offer; a flag's opposite may be left out of
# the first and the last.
test_options_of_a_mount()
{
    local name
    lists options mount/settings.c >"$T/code"
    (($(wc -l <"$T/code") > 30)) || fail "where is the table of settings?"
    lists opposites mount/settings.c >"$T/opposites"
    sort "$T/code" "$T/opposites" >"$T/all"
    lists man-options mount/walefs.8 >"$T/man"
    assert_same_list "$T/man" "$T/all" "options in walefs.8"
    completion _walefs_mount_options "$WALEFS" >"$T/offered"
    comm -23 "$T/offered" "$T/opposites" >"$T/offered.own"
    assert_same_list "$T/offered.own" "$T/code" "options in --help"
    # and each is taken, with or without a value
    mkdir "$T/m"
    while read -r name; do
        "$WALEFS" -o "$name" "file://localhost$T/none" "$T/m" >"$T/out" 2>&1 || true
        case $name in
        *=) grep -q 'empty value' "$T/out" || fail "$name takes no value: $(cat "$T/out")" ;;
        *) ! grep -q 'option' "$T/out" || fail "$name is not taken: $(cat "$T/out")" ;;
        esac
    done <"$T/all"
}

test_variables()
{
    (cd "$ROOT" && lists variables core/*.c fs/*.c mount/*.c >"$T/read")
    (cd "$ROOT" && lists asked core/*.c fs/*.c mount/*.c >"$T/asked")
    lists man-variables mount/walefs.8 >"$T/man"
    assert_eq "$(comm -23 "$T/read" "$T/man" | paste -sd ' ')" "" "variables that walefs.8 does not mention"
    assert_eq "$(sort -u "$T/read" "$T/asked" | comm -13 - "$T/man" | paste -sd ' ')" "" "variables that nobody reads"
}

# The options that examples give.
test_examples()
{
    local list n=0
    mkdir "$T/m"
    (cd "$ROOT" && lists mentioned README.md mount/docs/*.md mount/*.8 mount/systemd/* mount/help.c mount/walefs-*) >"$T/mentioned"
    while read -r list; do
        [[ $list == *= ]] && list+=x
        n=$((n + 1))
        "$WALEFS" -o "$list" "file://localhost$T/none" "$T/m" >"$T/out" 2>&1 && fail "mounted"
        ! grep -E 'unknown option|takes no value|needs a value' "$T/out" || fail "an example has -o $list"
    done <"$T/mentioned"
    ((n > 10)) || fail "where are the examples?"
}

# ---- flags -----------------------------------------------------------------------------------------------

flags_of_help() # PROGRAM...
{
    "$@" --help | grep -oE '^ +(-[a-zA-Z], )?--?[a-zA-Z][a-zA-Z-]*' | tr -d ' ' | tr ',' '\n' | sort -u
}

# PROGRAM says that it does not know a flag like REGEX; it knows those of its --help, and no others are in
# its man page and the completion.
same_flags() # REGEX MAN-PAGE PROGRAM...
{
    local flag regex=$1 page=$2
    shift 2
    flags_of_help "$@" >"$T/help"
    lists man-flags "$page" >"$T/man"
    assert_same_list "$T/man" "$T/help" "flags in $page"
    completion _walefs_flags "$@" >"$T/offered"
    assert_same_list "$T/offered" "$T/help" "flags that are completed for $*"
    "$@" --no-such-flag >"$T/out" 2>&1 </dev/null && fail "takes any flag"
    assert_match "$(cat "$T/out")" "$regex --no-such-flag" "$*"
    while read -r flag; do
        "$@" "$flag" >"$T/out" 2>&1 </dev/null || true
        ! grep -E -- "$regex" "$T/out" || fail "$* does not know $flag"
    done <"$T/help"
}

# The scripts' own lists of what they take.
flags_of_script() # FILE
{
    sed -n '/^parse_options()/,/^}/p' "$1" | tr -d '\\\n' | grep -oE '[ |]--?[a-zA-Z][a-z-]*( \||\))' | tr -d ' |)' | sort -u
}

test_flags()
{
    local s
    same_flags 'unknown argument' mount/walefs.8 "$WALEFS"
    same_flags 'unknown argument' mount/walefs-check.8 "$WALEFS" check
    for s in restore prune dump; do
        same_flags 'no option' mount/walefs-$s.8 "$ROOT/mount/walefs-$s"
        flags_of_script "$ROOT/mount/walefs-$s" >"$T/code"
        assert_same_list "$T/help" "$T/code" "flags in walefs-$s --help"
    done
}

# ---- names -----------------------------------------------------------------------------------------------

# What the runbook says that the log has, it can have: walefs' own words, or S3's codes.
test_runbook_quotes_what_is_said()
{
    local said
    # curl's, the kernel's, PostgreSQL's, and a status
    printf '%s\n' 'timed out' 'resolve host' 503 'Input/output error' 'No such file or directory' \
        'Transport endpoint is not connected' restore_command >"$T/others"
    # literals that go over several lines are put together, what is filled in is "..."
    cat "$ROOT"/{core,fs,mount}/*.c | sed '/^ *\/\?\*/d' | tr -d '\n' | sed 's/" *"//g; s/%[a-z]*/.../g' >"$T/code"
    lists messages mount/docs/restore.md >"$T/quoted"
    (($(wc -l <"$T/quoted") > 15)) || fail "where are the messages?"
    while read -r said; do
        grep -qF -- "${said#walefs: }" "$T/code" || fail "nothing says '$said'"
    done < <(grep -vxFf "$T/others" "$T/quoted")
}

# Sources, documents and metrics that are mentioned are there.
test_names()
{
    local name
    while read -r name; do
        compgen -G "$ROOT/$name" >/dev/null || compgen -G "$ROOT/$name.*" >/dev/null || fail "$name is not there"
    done < <(grep -ohE '\b(core|fs|mount|tests)/[A-Za-z0-9_/.*-]*[A-Za-z0-9_*/]' "$ROOT/README.md" "$ROOT"/mount/docs/*.md | grep -vE '^mount/pg' | sort -u)
    while read -r name; do
        compgen -G "$ROOT/*/$name" >/dev/null || compgen -G "$ROOT/*/*/$name" >/dev/null || fail "$name is nowhere"
    done < <(grep -ohE '`[a-z_0-9]+\.(c|h|sh|py|md)`' "$ROOT/README.md" "$ROOT"/mount/docs/*.md | tr -d '`' | sort -u)
    while read -r name; do
        [[ -e $ROOT/mount/docs/$name ]] || fail "$name is not there"
    done < <(grep -ohE '\]\([a-z]+\.md\)' "$ROOT"/mount/docs/*.md | tr -d '](),' | sort -u)
    while read -r name; do
        grep -qh -- "\"$name\|${name#walefs_}" "$ROOT"/{core,fs,mount}/*.c || fail "$name is nowhere"
    done < <(grep -ohE 'walefs_[a-z_]*[a-z]' "$ROOT/README.md" "$ROOT"/mount/docs/*.md "$ROOT"/mount/*.8 | sort -u)
}
