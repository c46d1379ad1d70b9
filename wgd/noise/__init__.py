"""Noise_IKpsk2 and all that guards it: bytes and times in, values out (paper, section 5).

messages    the wire formats                 cookie   MAC1, MAC2 and cookie replies
handshake   static keys to a keypair         replay   counters seen before
tai64n      timestamps of initiations        keypair  the session keys
primitives  the cryptographic functions
"""
