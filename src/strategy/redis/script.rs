//! The script: called by its hash, and by its text where the server does not know it.

use redis::{Cmd, Value};

use super::connection::Borrowed;
use super::fault::{classify, is_unknown_script};
use crate::algorithm::LUA;
use crate::strategy::Fault;

/// A script, ready to be called.
#[derive(Debug)]
pub(super) struct Script {
    text: String,
    hash: String,
}

impl Script {
    /// Of that text.
    pub(super) fn new(text: String) -> Self {
        let hash = redis::Script::new(&text).get_hash().to_owned();
        Self { text, hash }
    }

    /// The text of the script that decides.
    pub(super) fn text() -> String {
        [include_str!("prelude.lua"), LUA, include_str!("driver.lua")].concat()
    }

    /// Calls it: `command` makes the call of a command and the script as that names it. A server that does not know the
    /// script (new, restarted, flushed) did not run it and is sent its text on the same connection.
    pub(super) async fn call(
        &self,
        connection: &mut Borrowed,
        command: impl Fn(&str, &str) -> Cmd,
    ) -> Result<Value, Fault> {
        let by_hash = command("EVALSHA", &self.hash);
        let reply = match connection.command(&by_hash).await {
            Err(error) if is_unknown_script(&error) => {
                connection.command(&command("EVAL", &self.text)).await
            }
            reply => reply,
        };
        reply.map_err(|error| classify(&error))
    }
}
