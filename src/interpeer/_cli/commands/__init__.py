"""The commands, a module each: HELP, REACHES_PEERS, DATA_ON_STDOUT, `add_arguments` and `run` (interpeer._cli.parser.Command)."""
