//! `tollgate explain`: what the rules make of a request, without charging it.

use std::fmt;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::Serialize;

use crate::domain::Decision;
use crate::limiter::{Answer, Applies, Call, Effect, Limiter, Rule, RuleMode, Ruling};
use crate::strategy::Fault;

/// The request to explain, as the command line gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The client's address.
    pub ip: IpAddr,
    /// The method.
    pub method: String,
    /// The path, perhaps with a query.
    pub target: String,
    /// The host.
    pub host: Option<String>,
    /// Header fields.
    pub headers: Vec<(String, String)>,
    /// Whether a trusted proxy sends it.
    pub from_proxy: bool,
}

impl Question {
    fn call(&self) -> Call<'_> {
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.target.as_str(), None),
        };
        Call {
            client: self.ip,
            method: &self.method,
            path,
            query,
            host: self.host.as_deref(),
            fields: &self.headers,
            from_trusted_proxy: self.from_proxy,
        }
    }
}

/// What `tollgate explain` is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainOptions {
    /// The request.
    pub question: Question,
    /// The rules file; `None` takes `RULES_FILE`.
    pub file: Option<PathBuf>,
    /// Whether the store is left alone.
    pub offline: bool,
    /// Whether to print JSON.
    pub json: bool,
}

/// The grammar of the command.
pub(super) fn command() -> Command {
    let option =
        |name: &'static str, value: &'static str| Arg::new(name).long(name).value_name(value);
    let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
    Command::new("explain")
        .about(
            "Print which rules apply to a request, its buckets and the verdict; nothing is charged",
        )
        .arg(
            option("file", "FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .help("The rules file [default: RULES_FILE]"),
        )
        .arg(
            option("ip", "ADDRESS")
                .default_value("192.0.2.1")
                .value_parser(clap::value_parser!(IpAddr))
                .help("The client's address"),
        )
        .arg(
            option("method", "METHOD")
                .default_value("GET")
                .help("The method"),
        )
        .arg(
            option("path", "PATH")
                .default_value("/")
                .value_parser(target)
                .help("The path, perhaps with a query"),
        )
        .arg(option("host", "HOST").help("The host"))
        .arg(
            option("header", "NAME: VALUE")
                .action(ArgAction::Append)
                .value_parser(field)
                .help("A header field; may be given several times"),
        )
        .arg(
            flag("from-proxy")
                .help("As if a trusted proxy sent it, so that its word about a plan counts"),
        )
        .arg(flag("offline").help("Leave the store alone: no buckets"))
        .arg(flag("json").help("Print JSON"))
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is NAME: VALUE")?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_name {
        return Err(format!("{name:?} is no name of a header"));
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

/// A server finds the path itself in `http://host/path`, so such a text would be explained as another request.
fn target(text: &str) -> Result<String, String> {
    let is_target = text.starts_with('/') || text == "*";
    is_target
        .then(|| text.to_owned())
        .ok_or_else(|| "a path begins with `/`; the host is for --host".to_owned())
}

/// Reads what follows the command.
pub(super) fn options(arguments: &ArgMatches) -> ExplainOptions {
    let text = |name| arguments.get_one::<String>(name).cloned();
    let headers = arguments.get_many("header").unwrap_or_default();
    ExplainOptions {
        question: Question {
            ip: *arguments.get_one("ip").expect("it has a default"),
            method: text("method").unwrap_or_default(),
            target: text("path").unwrap_or_default(),
            host: text("host"),
            headers: headers.cloned().collect(),
            from_proxy: arguments.get_flag("from-proxy"),
        },
        file: arguments.get_one("file").cloned(),
        offline: arguments.get_flag("offline"),
        json: arguments.get_flag("json"),
    }
}

/// What the rules make of a request.
#[derive(Debug, Serialize)]
pub struct Explanation {
    version: String,
    verdict: String,
    rules: Vec<Line>,
}

/// What one rule is to the request.
#[derive(Debug, Serialize)]
struct Line {
    rule: String,
    /// `no`, `off`, `not read`, `skipped`, `yes`, `shadow`.
    applies: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bucket: Option<Bucket>,
}

/// How a bucket stands; times in microseconds.
#[derive(Debug, Serialize)]
struct Bucket {
    limit: u64,
    remaining: u64,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_us: Option<u128>,
    reset_after_us: u128,
}

impl From<&Decision> for Bucket {
    fn from(decision: &Decision) -> Self {
        Self {
            limit: decision.limit,
            remaining: decision.remaining,
            allowed: decision.is_allowed(),
            retry_after_us: decision.retry_after().map(|wait| wait.as_micros()),
            reset_after_us: decision.reset_after.as_micros(),
        }
    }
}

impl Explanation {
    /// Asks `limiter`, and the store as well if `buckets`. Nothing is charged.
    ///
    /// # Errors
    ///
    /// When the store cannot tell.
    pub async fn of(limiter: &Limiter, question: &Question, buckets: bool) -> Result<Self, Fault> {
        let (set, call) = (limiter.rules(), question.call());
        let applies = limiter.explain(&set, &call);
        let lines = set.rules().iter().zip(&applies);
        let mut rules: Vec<Line> = lines
            .map(|(rule, applies)| Line::of(rule, applies))
            .collect();
        let reading = limiter.read(&call);
        for (i, charge) in reading.asked() {
            rules[i].key = Some(charge.key().as_str().to_owned());
            rules[i].cost = Some(charge.cost().get());
        }
        let depends = !buckets && !reading.is_refused() && !reading.charges().is_empty();
        let verdict = if depends {
            "depends on the buckets".to_owned()
        } else {
            let answer = limiter.peek(reading).await?;
            for (i, ruled) in answer.by_place() {
                rules[i].bucket = Some(ruled.decision.into());
            }
            verdict(&answer)
        };
        Ok(Self {
            version: set.version().to_string(),
            verdict,
            rules,
        })
    }

    /// Prints it, as JSON or for people.
    ///
    /// # Errors
    ///
    /// When the output cannot be written.
    pub fn print(&self, json: bool, mut to: impl Write) -> io::Result<()> {
        if json {
            serde_json::to_writer_pretty(&mut to, self)?;
            return writeln!(to);
        }
        let width = self.rules.iter().map(|line| line.rule.len()).max();
        let width = width.unwrap_or_default();
        for line in &self.rules {
            let mut told: Vec<String> = Vec::new();
            told.extend(line.why.clone());
            told.extend(line.key.as_ref().map(|key| format!("key {key}")));
            told.extend(
                line.cost
                    .filter(|cost| *cost > 1)
                    .map(|cost| format!("cost {cost}")),
            );
            told.extend(line.bucket.as_ref().map(Bucket::to_string));
            let (rule, applies, told) = (&line.rule, line.applies, told.join(", "));
            writeln!(
                to,
                "{}",
                format!("{rule:width$}  {applies:8}  {told}").trim_end()
            )?;
        }
        writeln!(to, "\n{} (rules {})", self.verdict, self.version)
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} left", self.remaining, self.limit)?;
        match self
            .retry_after_us
            .and_then(|wait| u64::try_from(wait).ok())
        {
            Some(wait) => write!(f, ", too little for {:?}", Duration::from_micros(wait)),
            None => Ok(()),
        }
    }
}

impl Line {
    fn of(rule: &Rule, applies: &Applies<'_>) -> Self {
        let (applies, why) = match applies {
            Applies::No(mismatch) => ("no", Some(mismatch.to_string())),
            Applies::Off => ("off", None),
            Applies::NotRead => (
                "not read",
                Some("a rule above ended the reading".to_owned()),
            ),
            Applies::Skipped(part) => ("skipped", Some(format!("it has no {part}"))),
            Applies::Yes => match (&rule.effect, rule.mode) {
                (Effect::Exempt, _) => ("yes", Some("exempt: no rule below applies".to_owned())),
                (Effect::Deny, RuleMode::Shadow) => {
                    ("shadow", Some("deny: it would be refused".to_owned()))
                }
                (Effect::Deny, _) => ("yes", Some("deny: it is refused".to_owned())),
                (Effect::Limit(_), RuleMode::Shadow) => ("shadow", None),
                (Effect::Limit(_), _) => ("yes", None),
            },
        };
        Self {
            rule: rule.name.as_str().to_owned(),
            applies,
            why,
            key: None,
            cost: None,
            bucket: None,
        }
    }
}

fn verdict(answer: &Answer) -> String {
    let name = |rule: usize| answer.rule(rule).name.as_str();
    match &answer.ruling {
        Ruling::Decided(verdict) if verdict.admitted => "200, admitted".to_owned(),
        Ruling::Decided(_) => {
            let enforced = answer.enforced();
            let denials = enforced.filter(|ruled| !ruled.decision.is_allowed());
            let names: Vec<_> = denials.map(|ruled| ruled.rule.name.as_str()).collect();
            format!("429, denied by {}", names.join(", "))
        }
        Ruling::Unlimited => "200, no limit applies".to_owned(),
        Ruling::Unavailable => "503, the store cannot decide".to_owned(),
        Ruling::Banned { rule } => format!("403, refused by {}", name(*rule)),
        Ruling::KeyAbsent { rule, part } => {
            let part = answer.part(*rule, *part).map(ToString::to_string);
            let part = part.unwrap_or_default();
            format!("403, refused by {}: it has no {part}", name(*rule))
        }
        Ruling::Inadmissible { rule, error } => format!("422, {error} ({})", name(*rule)),
    }
}
