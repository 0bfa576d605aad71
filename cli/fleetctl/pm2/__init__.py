"""PM2's files and PM2's lists of processes, read as the apps they would be here."""
