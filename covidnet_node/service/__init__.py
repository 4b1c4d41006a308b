"""The running node: processes, loops, schedule, status page. Composes; decides in two loops."""
