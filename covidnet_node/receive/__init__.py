"""C-ECHO and C-STORE SCP: bytes go to the spool, a case to the journal, a status to the sender."""
