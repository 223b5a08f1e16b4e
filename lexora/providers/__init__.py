"""Pure translation between the gateway's API and each upstream's: bytes in, bytes out, no I/O."""
