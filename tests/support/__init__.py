"""What tests start: the gateway, a model server, an upstream that replays recorded bytes."""
