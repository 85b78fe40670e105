//! `pulse token`: API tokens, made and revoked by the running daemon, or in its data folder while none runs.

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use reqwest::Method;
use serde_json::json;

use super::client::{DaemonOption, segment};
use super::health::plain_table;
use super::offline::Offline;
use super::{Failed, print_json, print_line};
use crate::api::{TokenIssued, TokenList, TokenRequest};
use crate::config::Environment;
use crate::security::{Caller, NewToken, Role, TokenRecord};

const PATH: &str = "/api/security/tokens";

const CREATE_EXAMPLES: &str = "\
Examples:
  pulse token create --name grafana
      A token that reads.
  pulse token create --name deploy --role admin --expires-in 90d
  pulse token create --name backup --json | jq -r .token > ~/.pulse-token";

const LIST_EXAMPLES: &str = "\
Examples:
  pulse token list
  pulse token list --json | jq '.tokens[] | select(.lastUsed == null).name'";

const REVOKE_EXAMPLES: &str = "\
Examples:
  pulse token revoke grafana --reason 'it was in a public repository'";

/// Manages the tokens that calls over TCP need.
#[derive(Debug, Args)]
pub(super) struct TokenCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Makes a token and prints it, once.
#[derive(Debug, Args)]
#[command(after_help = CREATE_EXAMPLES)]
struct Create {
    /// What it is for.
    #[arg(long)]
    name: String,

    /// What its holder may do.
    #[arg(long, default_value = "viewer", value_parser = PossibleValuesParser::new(Role::ALL.map(Role::as_str)))]
    role: String,

    /// After what time it opens nothing any more, such as 90d; never if not given.
    #[arg(long, value_name = "TIME")]
    expires_in: Option<Span>,

    #[command(flatten)]
    common: Common,
}

/// Lists the tokens, never their secrets.
#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
struct List {
    #[command(flatten)]
    common: Common,
}

/// Revokes a token; it opens nothing from then on.
#[derive(Debug, Args)]
#[command(after_help = REVOKE_EXAMPLES)]
struct Revoke {
    /// The token's name.
    name: String,

    /// Why, for the audit log.
    #[arg(long)]
    reason: Option<String>,

    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    daemon: DaemonOption,
}

impl TokenCommand {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failed> {
        match self.command {
            Command::Create(command) => command.run(environment),
            Command::List(command) => command.run(environment),
            Command::Revoke(command) => command.run(environment),
        }
    }
}

impl Create {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let Common { json, daemon } = &self.common;
        let role: Role = self.role.parse().map_err(Failed::because)?;
        let issued: TokenIssued = if daemon.is_there(environment)? {
            let now = super::wall_time()?;
            let request = TokenRequest {
                name: self.name,
                role,
                expires_at: self.expires_in.map(|it| end(now, it)).transpose()?,
                reason: None,
            };
            daemon.send(environment, Method::POST, PATH, Some(&json!(request)))?
        } else {
            let (name, expires_in) = (self.name, self.expires_in);
            Offline::run(daemon.data_dir(environment)?, async |world| {
                let expires_at = expires_in.map(|it| end(world.clock.wall(), it)).transpose()?;
                let new = NewToken { name, role, expires_at };
                let issued = world.tokens.create(new, Caller::of_process(), None).await.map_err(Failed::because)?;
                Ok(TokenIssued { token: issued.token.expose().to_owned(), record: issued.record })
            })?
        };
        if *json {
            return print_json(&issued);
        }
        print_line(&issued.token)?;
        let TokenRecord { name, role, .. } = &issued.record;
        eprintln!(
            "This is the token {name:?} ({role}). It is shown this once; keep it where only its user can read it."
        );
        Ok(())
    }
}

impl List {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let Common { json, daemon } = &self.common;
        let list: TokenList = if daemon.is_there(environment)? {
            daemon.get(environment, PATH)?
        } else {
            Offline::run(daemon.data_dir(environment)?, async |world| Ok(TokenList { tokens: world.tokens.list() }))?
        };
        if *json {
            return print_json(&list);
        }
        let mut table = plain_table(&["NAME", "ROLE", "CREATED", "BY", "EXPIRES", "LAST USED"]);
        let time =
            |at: Option<Timestamp>| at.map_or_else(|| "never".to_owned(), |at| at.strftime("%F %R UTC").to_string());
        for token in list.tokens {
            let TokenRecord { name, role, created_at, created_by, expires_at, last_used, .. } = token;
            table.add_row([
                name,
                role.to_string(),
                time(Some(created_at)),
                created_by,
                time(expires_at),
                time(last_used),
            ]);
        }
        print_line(&table.to_string())
    }
}

impl Revoke {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let Common { json, daemon } = &self.common;
        let revoked: TokenRecord = if daemon.is_there(environment)? {
            let path = format!("{PATH}/{}", segment(&self.name));
            daemon.send(environment, Method::DELETE, &path, Some(&json!({"reason": self.reason})))?
        } else {
            let (name, reason) = (self.name, self.reason);
            Offline::run(daemon.data_dir(environment)?, async |world| {
                world.tokens.revoke(&name, Caller::of_process(), reason).await.map_err(Failed::because)
            })?
        };
        if *json {
            return print_json(&revoked);
        }
        print_line(&format!("The token {:?} is revoked.", revoked.name))
    }
}

/// Days and months are those of the calendar in UTC.
fn end(now: Timestamp, after: Span) -> Result<Timestamp, Failed> {
    let end = now.to_zoned_datetime(TimeZone::UTC).checked_add(after).map_err(Failed::because)?;
    Ok(end.timestamp())
}
