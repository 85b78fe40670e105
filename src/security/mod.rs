//! Who may do what, and what was done: roles, API tokens, and the audit log.

pub mod audit;
mod key_file;
mod principal;
mod random;
mod tokens;

pub use key_file::{KeyFile, KeyFileError};
pub(crate) use principal::account_name;
pub use principal::{Actor, Caller, Credential, Principal, Role, UnknownRole};
pub use random::NoRandomness;
pub use tokens::{IssuedToken, NewToken, TokenError, TokenId, TokenRecord, TokenRefused, TokenStore};
