"""What is read from the database: the HTTP API, and the queries that the page shares."""
