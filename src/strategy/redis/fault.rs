//! The one place where an error of the Redis client becomes a [`Fault`].

use redis::{ErrorKind, RedisError};

use crate::strategy::Fault;

/// Classifies an error of a command that was sent on an open connection.
pub(super) fn classify(error: &RedisError) -> Fault {
    if let Some((code, message)) = server_error(error) {
        return match code.as_str() {
            "WRONGTYPE" => Fault::BadRecord { code, message },
            _ => Fault::Refused { code, message },
        };
    }
    match error.kind() {
        ErrorKind::Io => Fault::Lost(error.to_string()),
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig | ErrorKind::Client => {
            Fault::Unreachable(error.to_string())
        }
        _ => Fault::BadReply(error.to_string()),
    }
}

/// Whether the server does not know the script: then it did not run it.
pub(super) fn is_unknown_script(error: &RedisError) -> bool {
    server_error(error).is_some_and(|(code, _)| code == "NOSCRIPT")
}

/// The code and the text of the server's own error: of a pipeline, of the command that failed first for a reason of
/// its own (EXECABORT only tells that an earlier one did).
///
/// Redis 6.2 wraps an error inside a script in one of its own and leaves the code in the text, behind `: -`.
fn server_error(error: &RedisError) -> Option<(String, String)> {
    let errors = error.clone().into_server_errors()?;
    let (_, telling) = errors
        .iter()
        .find(|(_, error)| error.code() != "EXECABORT")
        .or_else(|| errors.first())?;
    let message = telling.details().unwrap_or_default();
    let wrapped = message
        .split_once(": -")
        .map(|(_, inner)| inner)
        .and_then(|inner| inner.split_once(' '));
    let (code, message) = match wrapped {
        Some((code, message)) if telling.code() == "ERR" => (code, message),
        _ => (telling.code(), message),
    };
    Some((code.to_owned(), message.to_owned()))
}

#[cfg(test)]
mod tests {
    use redis::{ServerError, parse_redis_value};

    use super::*;

    fn error(reply: &str) -> RedisError {
        let error = parse_redis_value(reply.as_bytes())
            .unwrap()
            .extract_error()
            .unwrap_err();
        ServerError::try_from(error).unwrap().into()
    }

    #[test]
    fn a_server_error_was_not_executed() {
        for code in [
            "OOM",
            "READONLY",
            "LOADING",
            "MISCONF",
            "NOAUTH",
            "NOPERM",
            "BUSY",
            "CLUSTERDOWN",
            "ERR",
        ] {
            let fault = classify(&error(&format!("-{code} some text\r\n")));
            assert_eq!(
                fault,
                Fault::Refused {
                    code: code.to_owned(),
                    message: "some text".to_owned()
                }
            );
            assert!(!fault.is_ambiguous());
        }
    }

    #[test]
    fn a_wrong_type_is_a_fault_of_that_key() {
        let fault = classify(&error("-WRONGTYPE Operation against a key\r\n"));
        assert_eq!(
            (fault.kind(), fault.scope()),
            ("WRONGTYPE", crate::strategy::Scope::Request)
        );
    }

    #[test]
    fn a_code_inside_a_script_error_is_found() {
        let text =
            "-ERR Error running script (call to f_1): @user_script:5: -OOM command not allowed\r\n";
        assert_eq!(classify(&error(text)).kind(), "OOM");
    }

    #[test]
    fn a_broken_connection_is_ambiguous() {
        let error = RedisError::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
        assert!(classify(&error).is_ambiguous());
    }
}
