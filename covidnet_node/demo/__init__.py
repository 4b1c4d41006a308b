"""The demonstration: a real node, a throw-away PACS, synthetic chest X-rays.

It plays the node's peers, so it may use pynetdicom where the node itself may not.
"""
