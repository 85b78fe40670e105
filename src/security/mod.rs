//! Who may do what, and what was done: roles, API tokens, and the audit log.

mod accounts;
pub mod audit;
mod books;
mod key_file;
mod limits;
mod lockout;
mod password;
mod principal;
mod proxies;
mod random;
mod refusals;
mod tokens;

pub use accounts::{
    AccountError, AccountRefused, Accounts, NewUser, Session, SessionId, SessionRecord, SessionRules, SignIn, SignedIn,
    UserName, UserRecord,
};
pub use books::Books;
pub use key_file::{KeyFile, KeyFileError};
pub use limits::{CALLS_A_MINUTE, CallerId, MANAGEMENT_CALLS_A_MINUTE, RateLimits, Standing};
pub use password::{HashCost, HashError, Hasher, NewPassword, UnfitPassword};
pub(crate) use principal::account_name;
pub use principal::{Actor, Caller, Credential, Principal, Role, UnknownRole};
pub use proxies::{NotANetwork, ProxyHeader, TrustedProxies, TrustedProxy};
pub use random::NoRandomness;
pub(crate) use random::random_bytes;
pub use refusals::{Reason as RefusalReason, RefusalCounts, Refusals};
pub use tokens::{IssuedToken, NewToken, TokenError, TokenId, TokenRecord, TokenRefused, TokenStore};
