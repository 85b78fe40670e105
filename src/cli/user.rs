//! `pulse user`: who may sign in; by the running daemon, or in its data folder while none runs.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use jiff::Timestamp;
use reqwest::Method;
use serde_json::json;

use super::client::{DaemonOption, segment};
use super::health::plain_table;
use super::offline::Offline;
use super::{Failed, print_json, print_line};
use crate::api::UserList;
use crate::config::Environment;
use crate::security::{Caller, NewUser, Role, UserRecord};
use crate::targets::Secret;

const PATH: &str = "/api/security/users";
const MAX_PASSWORD_BYTES: u64 = 4096;

const ADD_EXAMPLES: &str = "\
Examples:
  pulse user add alice --role admin
      Asks for the password.
  pulse user add bob --password-file /run/secrets/bob
      Somebody who reads.";

const PASSWD_EXAMPLES: &str = "\
Examples:
  pulse user passwd alice
  openssl rand -base64 24 | tee /dev/tty | pulse user passwd alice --password-file -";

const ROLE_EXAMPLES: &str = "\
Examples:
  pulse user role bob operator --reason 'on call from May'";

const LIST_EXAMPLES: &str = "\
Examples:
  pulse user list
  pulse user list --json | jq '.users[] | select(.role == \"admin\").name'";

const REMOVE_EXAMPLES: &str = "\
Examples:
  pulse user remove bob --reason 'left the team'";

/// Manages the users, who sign in with a password.
#[derive(Debug, Args)]
pub(super) struct UserCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Add(Add),
    Passwd(Passwd),
    Role(RoleCommand),
    List(List),
    Remove(Remove),
}

/// Adds a user.
#[derive(Debug, Args)]
#[command(after_help = ADD_EXAMPLES)]
struct Add {
    /// Their name.
    name: String,

    /// What they may do.
    #[arg(long, default_value = "viewer", value_parser = roles())]
    role: String,

    #[command(flatten)]
    password: PasswordOption,

    #[command(flatten)]
    common: Common,
}

/// Sets the password of a user; their sessions end.
#[derive(Debug, Args)]
#[command(after_help = PASSWD_EXAMPLES)]
struct Passwd {
    /// The user's name.
    name: String,

    #[command(flatten)]
    password: PasswordOption,

    #[command(flatten)]
    common: Common,
}

/// Gives a user another role; their sessions end.
#[derive(Debug, Args)]
#[command(after_help = ROLE_EXAMPLES)]
struct RoleCommand {
    /// The user's name.
    name: String,

    /// What they may do from now on.
    #[arg(value_parser = roles())]
    role: String,

    #[command(flatten)]
    common: Common,
}

/// Lists the users.
#[derive(Debug, Args)]
#[command(after_help = LIST_EXAMPLES)]
struct List {
    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    daemon: DaemonOption,
}

/// Removes a user; their sessions end. The last admin stays.
#[derive(Debug, Args)]
#[command(after_help = REMOVE_EXAMPLES)]
struct Remove {
    /// The user's name.
    name: String,

    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Why, for the audit log.
    #[arg(long)]
    reason: Option<String>,

    /// Print JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    daemon: DaemonOption,
}

/// Where a password comes from. Never from an argument, which others on the machine could read.
#[derive(Debug, Args)]
struct PasswordOption {
    /// The file that holds the password, on its first line; `-` is standard input. Without it, it is asked for.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl UserCommand {
    pub(super) fn run(self, environment: &Environment) -> Result<(), Failed> {
        match self.command {
            Command::Add(command) => command.run(environment),
            Command::Passwd(command) => command.run(environment),
            Command::Role(command) => command.run(environment),
            Command::List(command) => command.run(environment),
            Command::Remove(command) => command.run(environment),
        }
    }
}

impl Add {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let Common { reason, json, daemon } = self.common;
        let (name, role) = (self.name, parse_role(&self.role)?);
        let password = self.password.read(&name)?;
        let user: UserRecord = if daemon.is_there(environment)? {
            let password = password.expose();
            let request = json!({"name": name, "role": role, "password": password, "reason": reason});
            daemon.send(environment, Method::POST, PATH, Some(&request))?
        } else {
            Offline::run(daemon.data_dir(environment)?, async |world| {
                let new = NewUser { name, role, password };
                world.accounts.add(new, Caller::of_process(), reason).await.map_err(Failed::because)
            })?
        };
        told(&user, json, &format!("{} may sign in as {}.", user.name, user.role))
    }
}

impl Passwd {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let Common { reason, json, daemon } = self.common;
        let name = self.name;
        let password = self.password.read(&name)?;
        let user: UserRecord = if daemon.is_there(environment)? {
            let request = json!({"password": password.expose(), "reason": reason});
            daemon.send(environment, Method::PUT, &format!("{PATH}/{}/password", segment(&name)), Some(&request))?
        } else {
            Offline::run(daemon.data_dir(environment)?, async |world| {
                let set = world.accounts.set_password(&name, password, Caller::of_process(), reason);
                set.await.map_err(Failed::because)
            })?
        };
        told(&user, json, &format!("{} has a new password, and has to sign in again.", user.name))
    }
}

impl RoleCommand {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let Common { reason, json, daemon } = self.common;
        let (name, role) = (self.name, parse_role(&self.role)?);
        let user: UserRecord = if daemon.is_there(environment)? {
            let request = json!({"role": role, "reason": reason});
            daemon.send(environment, Method::PUT, &format!("{PATH}/{}/role", segment(&name)), Some(&request))?
        } else {
            Offline::run(daemon.data_dir(environment)?, async |world| {
                world.accounts.set_role(&name, role, Caller::of_process(), reason).await.map_err(Failed::because)
            })?
        };
        told(&user, json, &format!("{} is {} now, and has to sign in again.", user.name, user.role))
    }
}

impl List {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let list: UserList = if self.daemon.is_there(environment)? {
            self.daemon.get(environment, PATH)?
        } else {
            Offline::run(self.daemon.data_dir(environment)?, async |world| {
                Ok(UserList { users: world.accounts.list().await.map_err(Failed::because)? })
            })?
        };
        if self.json {
            return print_json(&list);
        }
        let mut table = plain_table(&["NAME", "ROLE", "ADDED", "BY", "PASSWORD SET", "LAST SIGN-IN"]);
        let time = |at: Timestamp| at.strftime("%F %R UTC").to_string();
        for user in list.users {
            table.add_row([
                user.name.to_string(),
                user.role.to_string(),
                time(user.created_at),
                user.created_by,
                time(user.password_set_at),
                user.last_sign_in.map_or_else(|| "never".to_owned(), time),
            ]);
        }
        print_line(&table.to_string())
    }
}

impl Remove {
    fn run(self, environment: &Environment) -> Result<(), Failed> {
        let Common { reason, json, daemon } = self.common;
        let name = self.name;
        let user: UserRecord = if daemon.is_there(environment)? {
            let request = json!({"reason": reason});
            daemon.send(environment, Method::DELETE, &format!("{PATH}/{}", segment(&name)), Some(&request))?
        } else {
            Offline::run(daemon.data_dir(environment)?, async |world| {
                world.accounts.remove(&name, Caller::of_process(), reason).await.map_err(Failed::because)
            })?
        };
        told(&user, json, &format!("{} is removed.", user.name))
    }
}

impl PasswordOption {
    fn read(&self, name: &str) -> Result<Secret, Failed> {
        match &self.password_file {
            Some(file) if file == Path::new("-") => first_line(std::io::stdin(), "standard input"),
            Some(file) => {
                let shown = file.display().to_string();
                let opened = std::fs::File::open(file);
                let opened = opened.map_err(|error| Failed::because(format!("cannot read {shown}: {error}")))?;
                first_line(opened, &shown)
            }
            None if std::io::stdin().is_terminal() => ask(name),
            None => Err(Failed::because("there is no terminal to ask for the password at; give --password-file")),
        }
    }
}

fn first_line(from: impl Read, shown: &str) -> Result<Secret, Failed> {
    let mut text = zeroize::Zeroizing::new(String::new());
    let read = from.take(MAX_PASSWORD_BYTES).read_to_string(&mut text);
    read.map_err(|error| Failed::because(format!("cannot read the password in {shown}: {error}")))?;
    Ok(Secret::new(text.lines().next().unwrap_or_default().to_owned()))
}

fn ask(name: &str) -> Result<Secret, Failed> {
    let ask = |prompt: String| rpassword::prompt_password(prompt).map(Secret::new).map_err(Failed::because);
    let password = ask(format!("Password for {name}, 15 characters or more: "))?;
    let again = ask("The same again: ".to_owned())?;
    match password.expose() == again.expose() {
        true => Ok(password),
        false => Err(Failed::because("the two are not the same; nothing was changed")),
    }
}

fn roles() -> PossibleValuesParser {
    PossibleValuesParser::new(Role::ALL.map(Role::as_str))
}

fn parse_role(text: &str) -> Result<Role, Failed> {
    text.parse().map_err(Failed::because)
}

fn told(user: &UserRecord, json: bool, line: &str) -> Result<(), Failed> {
    if json { print_json(user) } else { print_line(line) }
}
