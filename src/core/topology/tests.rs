//! What resources expand into.
