"""Scripts that complete commands and options: `interpeer --completion bash >> ~/.bashrc`, and so on."""

from __future__ import annotations

from interpeer._cli.parser import COMMANDS, command, options_by_command

_BASH = """\
_interpeer() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} command= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in {alternatives}) command=${{COMP_WORDS[i]}}; break ;; esac
    done
    case $command:$word in
{cases}
        *) COMPREPLY=($(compgen -f -- "$word")) ;;
    esac
}}
complete -o filenames -F _interpeer interpeer
"""

_ZSH = """\
#compdef interpeer
_interpeer() {{
    local word=${{words[CURRENT]}} command= candidate
    for candidate in ${{words[2,CURRENT-1]}}; do
        case $candidate in {alternatives}) command=$candidate; break ;; esac
    done
    case $command:$word in
{cases}
        *) _files ;;
    esac
}}
compdef _interpeer interpeer
"""


def script(shell: str) -> str:
    """Return the script for "bash", "zsh" or "fish"."""
    options = options_by_command()
    if shell == "fish":
        return _fish(options)
    template, line = (_BASH, _bash_case) if shell == "bash" else (_ZSH, _zsh_case)
    cases = [line(f"{name}:-*", [option for option, _ in options[name]]) for name in options if name]
    cases += [line(":-*", [option for option, _ in options[""]]), line(":*", list(COMMANDS))]
    return template.format(alternatives="|".join(COMMANDS), cases="\n".join(cases))


def _bash_case(pattern: str, words: list[str]) -> str:
    return f'        {pattern}) COMPREPLY=($(compgen -W "{" ".join(words)}" -- "$word")) ;;'


def _zsh_case(pattern: str, words: list[str]) -> str:
    return f"        {pattern}) compadd -- {' '.join(words)} ;;"


def _fish(options: dict[str, list[tuple[str, str]]]) -> str:
    lines = [f"complete -c interpeer -n __fish_use_subcommand -f -a {name} -d {_quoted(command(name).HELP)}" for name in COMMANDS]
    for name, listed in options.items():
        condition = f"'__fish_seen_subcommand_from {name}'" if name else "__fish_use_subcommand"
        for option, text in listed:
            flag = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            lines.append(f"complete -c interpeer -n {condition} {flag} -d {_quoted(text)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
