//! The one place where an error of the Redis client becomes a [`Fault`].

use deadpool_redis::{PoolError, TimeoutType};
use redis::{ErrorKind, RedisError};

use crate::strategy::Fault;

/// How Redis 6.2 starts an error that a script met and returned, before the number of the line.
const IN_SCRIPT: &str = "@user_script:";
/// How Redis 6.2 and 7.0, and how later ones and Valkey start to tell that a script met a command, a key or a channel
/// that its user may not use.
const NOT_ALLOWED: [&str; 2] = [
    "The user executing the script can't",
    "ACL failure in script: ",
];

/// Classifies an error of a command that was sent on an open connection.
pub(super) fn classify(error: &RedisError) -> Fault {
    if let Some((code, message)) = server_error(error) {
        return Fault::Refused { code, message };
    }
    match error.kind() {
        ErrorKind::Io => Fault::Lost(error.to_string()),
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig | ErrorKind::Client => {
            Fault::Unreachable(error.to_string())
        }
        _ => Fault::BadReply(error.to_string()),
    }
}

/// Classifies an error of an attempt to connect: no command was sent on it.
pub(super) fn classify_connecting(error: &RedisError) -> Fault {
    match server_error(error) {
        Some((code, message)) if code != "ERR" => Fault::Refused { code, message },
        // The client keeps no code of a login by AUTH.
        _ if error.kind() == ErrorKind::AuthenticationFailed => Fault::Refused {
            code: "WRONGPASS".to_owned(),
            message: error.to_string(),
        },
        _ => Fault::Unreachable(error.to_string()),
    }
}

/// Classifies why the pool had no connection.
pub(super) fn classify_pool(error: &PoolError) -> Fault {
    match error {
        PoolError::Timeout(TimeoutType::Wait) => Fault::PoolExhausted,
        PoolError::Backend(error) => classify_connecting(error),
        other => Fault::Unreachable(other.to_string()),
    }
}

/// Classifies an error that the script met and returned as a text, such as `WRONGTYPE Operation against a key ...`.
pub(super) fn classify_text(text: &[u8]) -> Fault {
    let text = String::from_utf8_lossy(text);
    let (code, message) = text.split_once(' ').unwrap_or((&text, ""));
    let (code, message) = meant(code, message);
    Fault::Refused {
        code: code.to_owned(),
        message: message.to_owned(),
    }
}

/// Whether the server does not know the script: then it did not run it.
pub(super) fn is_unknown_script(error: &RedisError) -> bool {
    server_error(error).is_some_and(|(code, _)| code == "NOSCRIPT")
}

/// The code and the text of the server's own error: of a pipeline, of the command that failed first for a reason of
/// its own (EXECABORT only tells that an earlier one did).
fn server_error(error: &RedisError) -> Option<(String, String)> {
    let errors = error.clone().into_server_errors()?;
    let (_, telling) = errors
        .iter()
        .find(|(_, error)| error.code() != "EXECABORT")
        .or_else(|| errors.first())?;
    let (code, message) = meant(telling.code(), telling.details().unwrap_or_default());
    Some((code.to_owned(), message.to_owned()))
}

/// The code and the text that are meant.
///
/// Redis 6.2 wraps an error inside a script in one of its own and leaves the code in the text, behind `: -`; or it puts
/// the number of the line before it, and the code is not first either. A script whose user may not run a command hears
/// no code from Redis 6.2, and ERR from all others.
fn meant<'a>(code: &'a str, message: &'a str) -> (&'a str, &'a str) {
    match code {
        "ERR" => unwrapped(message, message),
        IN_SCRIPT => {
            let (_line, text) = message.split_once(": ").unwrap_or(("", message));
            unwrapped(message, text)
        }
        _ => (code, message),
    }
}

/// The code that an error without one of its own hides, and its text.
fn unwrapped<'a>(message: &'a str, text: &'a str) -> (&'a str, &'a str) {
    let wrapped = message.split_once(": -");
    match wrapped.and_then(|(_, inner)| inner.split_once(' ')) {
        _ if NOT_ALLOWED.iter().any(|begin| text.starts_with(begin)) => ("NOPERM", text),
        Some(code_and_text) => code_and_text,
        None => ("ERR", text),
    }
}

#[cfg(test)]
mod tests {
    use redis::{ServerError, parse_redis_value};

    use super::*;
    use crate::strategy::{REFUSALS, Remedy, Scope};

    fn error(reply: &str) -> RedisError {
        let error = parse_redis_value(reply.as_bytes())
            .unwrap()
            .extract_error()
            .unwrap_err();
        ServerError::try_from(error).unwrap().into()
    }

    /// Each code that is known, in the order of the table, and what it must mean.
    #[test]
    fn every_code_is_told_from_the_others() {
        use Remedy::{GiveUp, Replace, TryAgain};
        use Scope::{Request, Store};
        let expected = [
            ("NOSCRIPT", TryAgain, Store),
            ("LOADING", TryAgain, Store),
            ("TRYAGAIN", TryAgain, Request),
            ("MASTERDOWN", TryAgain, Store),
            ("CLUSTERDOWN", TryAgain, Store),
            ("READONLY", Replace, Store),
            ("NOAUTH", Replace, Store),
            ("WRONGPASS", Replace, Store),
            ("NOPERM", GiveUp, Store),
            ("OOM", GiveUp, Store),
            ("MISCONF", GiveUp, Store),
            ("NOREPLICAS", GiveUp, Store),
            ("BUSY", GiveUp, Store),
            ("MOVED", GiveUp, Request),
            ("ASK", GiveUp, Request),
            ("CROSSSLOT", GiveUp, Request),
            ("WRONGTYPE", GiveUp, Request),
        ];
        assert_eq!(
            expected.map(|row| row.0)[..],
            REFUSALS.iter().map(|row| row.code).collect::<Vec<_>>()
        );
        for (code, remedy, scope) in expected {
            let fault = classify(&error(&format!("-{code} some text\r\n")));
            let refused = Fault::Refused {
                code: code.to_owned(),
                message: "some text".to_owned(),
            };
            assert_eq!(fault, refused);
            assert_eq!(
                (fault.remedy(), fault.scope(), fault.is_ambiguous()),
                (remedy, scope, false),
                "{code}"
            );
            assert!(!fault.advice().is_empty());
        }
    }

    /// Nobody knows what a server meant by it, so it may have been executed.
    #[test]
    fn an_unknown_code_is_ambiguous() {
        for code in ["ERR", "NEWCODE"] {
            let fault = classify(&error(&format!("-{code} some text\r\n")));
            assert_eq!(
                (fault.remedy(), fault.scope(), fault.is_ambiguous()),
                (Remedy::GiveUp, Scope::Store, true)
            );
        }
    }

    #[test]
    fn a_code_inside_a_script_error_is_found() {
        let text =
            "-ERR Error running script (call to f_1): @user_script:5: -OOM command not allowed\r\n";
        assert_eq!(classify(&error(text)).kind(), "OOM");
    }

    /// As Redis 6.2 says it when the script caught the error and returns it.
    #[test]
    fn a_code_behind_the_line_of_a_script_is_found() {
        let fault = classify(&error("-@user_script: 136: -OOM command not allowed\r\n"));
        let told = Fault::Refused {
            code: "OOM".to_owned(),
            message: "command not allowed".to_owned(),
        };
        assert_eq!(fault, told);
        let unknown = classify(&error("-@user_script: 136: Wrong number of args\r\n"));
        assert_eq!((unknown.kind(), unknown.is_ambiguous()), ("ERR", true));
    }

    #[test]
    fn what_a_script_may_not_do_is_told_as_such() {
        for text in [
            "-@user_script: 136: The user executing the script can't run this command",
            "-ERR The user executing the script can't run this command script: f",
            "-ERR ACL failure in script: User a has no permissions to run the 'b' command",
        ] {
            assert_eq!(classify(&error(&format!("{text}\r\n"))).kind(), "NOPERM");
        }
    }

    #[test]
    fn a_code_in_a_text_that_the_script_returns_is_found() {
        for (text, kind) in [
            ("WRONGTYPE Operation against a key", "WRONGTYPE"),
            ("@user_script: 12: -OOM command not allowed", "OOM"),
            ("ERR The user executing the script can't run f", "NOPERM"),
            ("PARTLY done: NOPERM no", "PARTLY"),
            ("ERR something", "ERR"),
            ("odd", "odd"),
            ("", ""),
        ] {
            assert_eq!(classify_text(text.as_bytes()).kind(), kind, "{text}");
        }
    }

    /// What failed after something was written is no refusal, whatever the reason.
    #[test]
    fn what_was_partly_done_is_ambiguous() {
        for reason in ["NOPERM no", "ERR The user executing the script can't"] {
            assert!(classify(&error(&format!("-PARTLY done: {reason}\r\n"))).is_ambiguous());
        }
    }

    #[test]
    fn a_login_that_fails_is_told_as_such() {
        let error = RedisError::from((ErrorKind::AuthenticationFailed, "no"));
        assert_eq!(classify_connecting(&error).kind(), "WRONGPASS");
    }

    #[test]
    fn a_broken_connection_is_ambiguous_but_not_while_it_is_made() {
        let error = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(classify(&error).is_ambiguous());
        assert!(!classify_connecting(&error).is_ambiguous());
    }
}
