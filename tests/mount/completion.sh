# shellcheck shell=bash disable=SC2034
# What bash completes.

# The last word is completed; "=" and ":" are words of their own, as bash cuts them.
completes() # PROGRAM WORD...
{
    bash -c '
        source "$ROOT/mount/completion/walefs"
        COMP_WORDS=("$@")
        COMP_CWORD=$(($# - 1))
        _walefs "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        [[ ${#COMPREPLY[@]} == 0 ]] || printf "%s\n" "${COMPREPLY[@]}"' bash "$@" | sort
}

lines()
{
    printf '%s\n' "$@" | sort
}

test_options_of_walefs()
{
    local name
    completes "$WALEFS" -o '' >"$T/all"
    # every option that --help tells, and no more
    for name in envdir= gpg_key= ro hard soft allow_other user= uid= gid= debug prefetch= cache_size=; do
        grep -qx -- "$name" "$T/all" || fail "$name is not offered"
    done
    while read -r name; do
        mkdir -p "$T/m"
        case $name in
        *=) "$WALEFS" -o "${name}" "$T/m" >"$T/out" 2>&1 || true ;;
        *) "$WALEFS" -o "$name" "file://localhost$T/none" "$T/m" >"$T/out" 2>&1 || true ;;
        esac
        ! grep -q 'unknown option' "$T/out" || fail "$name is offered, but unknown"
    done <"$T/all"
    assert_eq "$(completes "$WALEFS" -o pass)" passphrase_file= "one option"
    assert_eq "$(completes "$WALEFS" -o ro,hard,conn)" ro,hard,connect_timeout= "behind a comma"
    assert_eq "$(completes "$WALEFS" -o url_style = '')" "$(lines path virtual)" "values"
    assert_eq "$(completes "$WALEFS" -o url_style = 'v')" virtual "a value"
    assert_eq "$(completes "$WALEFS" -o url_style '=')" "$(lines path virtual)" "right behind ="
    mkdir -p "$T/dir/one" "$T/dir/two"
    touch "$T/dir/file"
    assert_eq "$(completes "$WALEFS" -o ro,envdir = "$T/dir/")" "$(lines "$T/dir/one" "$T/dir/two")" "directories"
    assert_eq "$(completes "$WALEFS" -o passphrase_file = "$T/dir/f")" "$T/dir/file" "files"
    assert_eq "$(completes "$WALEFS" -o user = roo)" root "users"
    assert_eq "$(completes "$WALEFS" -o uid = 1,soft_)" 1,soft_timeout= "the next option"
}

# Its own, and not those of the programs that its help speaks of.
flags_of_dump()
{
    lines --exclude --help --keep-daily --keep-monthly --keep-weekly --now --read-back -h
}

test_words()
{
    assert_eq "$(completes "$WALEFS" --h)" --help "flag"
    assert_eq "$(completes "$WALEFS" s3)" s3:// "source"
    mkdir -p "$T/mnt"
    assert_eq "$(completes "$WALEFS" s3 : //bucket "$T/mn")" "$T/mnt" "mount point"
    assert_eq "$(completes "$WALEFS" check --de)" --deep "a flag of walefs check"
    assert_eq "$(completes "$WALEFS" --de)" "" "the same without check"
    assert_eq "$(completes "$WALEFS" check -o ro,conn)" ro,connect_timeout= "an option of walefs check"
    assert_eq "$(completes "$ROOT/mount/walefs-restore" --target-n)" --target-name "walefs-restore"
    assert_eq "$(completes "$ROOT/mount/walefs-dump" -)" "$(flags_of_dump)" "walefs-dump"
    assert_eq "$(completes "$ROOT/mount/walefs-prune" --keep)" "$(lines --keep --keep-days)" "walefs-prune"
    assert_eq "$(completes "$ROOT/mount/walefs-prune" "$T/mn")" "$T/mnt" "walefs-prune's mount point"
    assert_eq "$(bash -c 'source "$ROOT/mount/completion/walefs"; complete -p' | sed 's/.* //' | sort | paste -sd ' ')" \
        "$(cd "$ROOT/mount" && printf '%s\n' walefs walefs-*[a-z] | grep -v '\.8$' | sort | paste -sd ' ')" "commands"
}
