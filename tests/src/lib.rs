//! Harness of the integration tests: starts the real parts and ends them.
