//! The leaf that owns every key byte: locked memory, key types, wrap, KDF, MAC, XTS engines.
