"""The workstation's commands: each module is imported only when its command is called."""
