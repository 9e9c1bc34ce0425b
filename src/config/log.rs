//! What is logged and how.

use super::env::Reader;
use crate::telemetry::Style;

/// What is logged and how.
#[derive(Debug, Clone)]
pub struct Log {
    /// Reads `LOG_LEVEL`: a level or directives. Default `info`.
    pub level: String,
    /// Reads `LOG_FORMAT`. Default `auto`.
    pub style: Style,
}

impl Log {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let levels = "error, warn, info, debug, trace, or directives such as `info,tollgate=debug`";
        Self {
            level: reader.value("LOG_LEVEL", levels, |text| {
                tracing_subscriber::EnvFilter::try_new(text)
                    .ok()
                    .map(|_| text.to_owned())
            }),
            style: reader.value(
                "LOG_FORMAT",
                "`auto`, `json` or `text`",
                |text| match text {
                    "auto" => Some(Style::Auto),
                    "json" => Some(Style::Json),
                    "text" => Some(Style::Text),
                    _ => None,
                },
            ),
        }
    }
}
