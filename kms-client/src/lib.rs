//! Key providers: where key-encrypting keys come from.
