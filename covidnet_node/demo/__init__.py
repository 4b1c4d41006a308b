"""The demonstration: a real node, a throw-away PACS, synthetic chest X-rays. Its own peer, so it
may use pynetdicom where the node itself may not."""
