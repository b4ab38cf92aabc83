//! Safes, descriptors, encrypted volumes and VM homes.
