"""The workstation's commands: each module is imported when its command is called."""
