# resnet.bash - completion for bash: the commands, options and choices that the program's own --help has.

# _resnet_option HELP --NAME: the option's argument and what is said of it, "FILE the model file", from its line of help
_resnet_option() {
    sed -n "s/^  $2 \{1,\}\([A-Z]* \{1,\}.*\)/\1/p" <<<"$1"
}

_resnet() {
    local current=$2 previous=$3 program=${1/#\~/$HOME} help argument
    COMPREPLY=()
    if [[ $COMP_CWORD == 1 || $COMP_CWORD == 2 && $previous == help ]]; then
        mapfile -t COMPREPLY < <(compgen -W "help $("$program" --help | sed -n 's/^  \([a-z]\{1,\}\) .*/\1/p')" -- "$current")
        return
    fi
    help=$("$program" "${COMP_WORDS[1]}" --help 2>/dev/null)
    if [[ $previous == = ]]; then # bash takes --name=value for three words
        previous=${COMP_WORDS[COMP_CWORD - 2]}
    elif [[ $current == = ]]; then
        current=
    fi
    [[ $previous == -o ]] && previous=--output
    [[ $previous == --* ]] && argument=$(_resnet_option "$help" "$previous")
    case $argument in
    FILE* | PATH* | DIR*) mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
    NAME*:*) mapfile -t COMPREPLY < <(compgen -W "$(tr -d , <<<"${argument#*:}")" -- "$current") ;;
    [A-Z]*) ;; # a number or a text: nothing to offer
    *)
        if [[ $current == -* ]]; then
            mapfile -t COMPREPLY < <(compgen -W "$(sed -n 's/^  \(--[a-z-]\{1,\}\).*/\1/p' <<<"$help")" -- "$current")
        else
            mapfile -t COMPREPLY < <(compgen -f -- "$current")
        fi
        ;;
    esac
}

complete -o filenames -F _resnet resnet
