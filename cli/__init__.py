"""The command line of adaptkit."""
