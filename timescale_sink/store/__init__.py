"""The database: how to reach it, its schema, and what is asked of it by more than one program."""
