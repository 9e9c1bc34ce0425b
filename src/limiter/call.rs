//! What rules may look at of one request.

use std::borrow::Cow;
use std::net::IpAddr;

use super::path::normal;

/// Header fields of a request, by name in any case.
pub trait Fields {
    /// The value of the first line of that name.
    fn first(&self, name: &str) -> Option<&[u8]>;
}

impl Fields for Vec<(String, String)> {
    fn first(&self, name: &str) -> Option<&[u8]> {
        let named = |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.iter().find(named).map(|(_, value)| value.as_bytes())
    }
}

/// One request, as rules see it. Of a header that stands in several lines they see the first.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// The client's address.
    pub client: IpAddr,
    /// The method, as it was sent: methods are case-sensitive.
    pub method: &'a str,
    /// The path, as it was sent.
    pub path: &'a str,
    /// What stands behind the path's `?`.
    pub query: Option<&'a str>,
    /// The host as the request's target names it, perhaps with a port; where it names none, the field `host` does.
    pub host: Option<&'a str>,
    /// The header fields.
    pub fields: &'a dyn Fields,
    /// Whether a trusted proxy sent it: only then does it count what it says of the client's plan.
    pub from_trusted_proxy: bool,
}

impl<'a> Call<'a> {
    /// A `GET /` without fields, for limits that look at the address alone.
    pub fn of(client: IpAddr) -> Self {
        static NONE: Vec<(String, String)> = Vec::new();
        Self {
            client,
            method: "GET",
            path: "/",
            query: None,
            host: None,
            fields: &NONE,
            from_trusted_proxy: false,
        }
    }

    /// The path in the one form in which paths are compared; see [`normal`].
    pub(super) fn normal_path(&self) -> Cow<'a, str> {
        normal(self.path)
    }

    /// The host in lower case, without a user, a port and a trailing dot.
    pub(super) fn normal_host(&self) -> Option<Cow<'a, str>> {
        let ascii = |host: &&[u8]| host.is_ascii();
        let named = || str::from_utf8(self.fields.first("host").filter(ascii)?).ok();
        let host = self.host.or_else(named)?;
        // `http://user@host/` asks for the same host: it must not get around a rule.
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
        (!name.is_empty()).then(|| match is_lower {
            true => Cow::Borrowed(name),
            false => Cow::Owned(name.to_ascii_lowercase()),
        })
    }

    /// The value of the first query parameter of that name, percent-decoded, `+` as a space.
    pub(super) fn query_value(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        let pairs = self.query?.split('&');
        pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find(|(key, _)| *decoded(key) == *name.as_bytes())
            .map(|(_, value)| decoded(value))
    }

    /// The value of the first cookie of that name.
    pub(super) fn cookie(&self, name: &str) -> Option<&'a [u8]> {
        let pairs = self.fields.first("cookie")?.split(|byte| *byte == b';');
        pairs.map(<[u8]>::trim_ascii).find_map(|pair| {
            let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
            Some(value.trim_ascii())
        })
    }

    /// Whether this is a browser asking beforehand whether another site's page may send the real request (CORS).
    pub(super) fn is_preflight(&self) -> bool {
        self.method == "OPTIONS"
            && self.fields.first("origin").is_some()
            && self.fields.first("access-control-request-method").is_some()
    }
}

impl std::fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Fields and the query may hold secrets.
        f.debug_struct("Call")
            .field("client", &self.client)
            .field("method", &self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Percent-decoded, `+` as a space. What does not decode stays as it is.
fn decoded(text: &str) -> Cow<'_, [u8]> {
    if !text.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, used) = match (first, super::path::escaped(rest)) {
            (b'+', _) => (b' ', 1),
            (_, Some(byte)) => (byte, 3),
            _ => (*first, 1),
        };
        bytes.push(byte);
        rest = &tail[used - 1..];
    }
    Cow::Owned(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<'a>(fields: &'a Vec<(String, String)>, query: Option<&'a str>) -> Call<'a> {
        Call {
            query,
            fields,
            ..Call::of([192, 0, 2, 1].into())
        }
    }

    #[test]
    fn hosts_are_compared_without_user_port_case_and_trailing_dot() {
        for (host, expected) in [
            (Some("user:pass@Example.com:80"), Some("example.com")),
            (Some("a@b@[2001:db8::1]"), Some("[2001:db8::1]")),
            (Some("user@"), None),
            (Some("Example.COM:8080"), Some("example.com")),
            (Some("example.com."), Some("example.com")),
            (Some("[2001:db8::1]:80"), Some("[2001:db8::1]")),
            (Some("[2001:db8::1]"), Some("[2001:db8::1]")),
            (Some(""), None),
            (Some(":80"), None),
            (None, None),
        ] {
            let of_nobody = Call::of([192, 0, 2, 1].into());
            let call = Call { host, ..of_nobody };
            assert_eq!(call.normal_host().as_deref(), expected, "{host:?}");
            // The target's stands before the field's.
            let field = |name: &str| vec![("Host".to_owned(), name.to_owned())];
            let fields = &field(host.unwrap_or_default());
            let call = Call {
                fields,
                ..of_nobody
            };
            assert_eq!(call.normal_host().as_deref(), expected, "{host:?}");
            let fields = &field("another");
            let call = Call {
                fields,
                host,
                ..of_nobody
            };
            let expected = if host.is_none() {
                Some("another")
            } else {
                expected
            };
            assert_eq!(call.normal_host().as_deref(), expected, "{host:?}");
        }
        let fields = &vec![("host".to_owned(), "exämple".to_owned())];
        let call = Call {
            fields,
            ..Call::of([192, 0, 2, 1].into())
        };
        assert_eq!(call.normal_host(), None, "no host has such a name");
    }

    #[test]
    fn query_values_are_decoded() {
        let none = Vec::new();
        let call = with(&none, Some("a=1&b=x%20y+z&a=2&%63=%zz&d"));
        for (name, expected) in [
            ("a", Some(&b"1"[..])),
            ("b", Some(b"x y z")),
            ("c", Some(b"%zz")),
            ("d", Some(b"")),
            ("e", None),
        ] {
            assert_eq!(call.query_value(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn cookies_are_found_by_their_whole_name() {
        let cookies = "xsid=no; sid=yes ; sid=late".to_owned();
        let fields = vec![("Cookie".to_owned(), cookies)];
        let call = with(&fields, None);
        assert_eq!(call.cookie("sid"), Some(&b"yes"[..]));
        assert_eq!((call.cookie("si"), call.cookie("id")), (None, None));
    }
}
