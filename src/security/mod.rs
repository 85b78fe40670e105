//! Who may talk to the daemon: API tokens, stored hashed and shown once.

mod tokens;

pub use tokens::{IssuedToken, TokenError, TokenRecord, TokenStore};
