//! A request as bytes.
//!
//! Owns the head and the bodies, written into buffers of their exact size that are wiped when they are dropped. It must not know what
//! is asked for, nor servers. Flow: a call builds a [`Body`], [`Request::encode`] puts head and body together.

use crypto::{KeyError, OpaqueKey};
use zeroize::Zeroizing;

/// Method and path, who asks, and with what.
pub(super) struct Request<'a> {
    pub(super) method: &'static str,
    /// Below `/v1/`; made of checked names only.
    pub(super) path: &'a str,
    pub(super) token: Option<&'a str>,
    pub(super) namespace: Option<&'a str>,
    pub(super) body: Body<'a>,
}

/// A JSON object with at most one key in it.
#[derive(Default)]
pub(super) struct Body<'a> {
    /// Everything up to the text of the key, or everything.
    before: String,
    key: Option<&'a OpaqueKey>,
    after: String,
}

impl<'a> Body<'a> {
    /// Members of texts that are no secrets.
    pub(super) fn texts(members: &[(&str, &str)]) -> Self {
        let members: Vec<_> = members
            .iter()
            .map(|(name, value)| format!("{}:{}", quoted(name), quoted(value)))
            .collect();
        Self { before: format!("{{{}}}", members.join(",")), key: None, after: String::new() }
    }

    /// A key as base64 in `plaintext`, and what it belongs to.
    pub(super) fn plaintext(key: &'a OpaqueKey, bound: &str) -> Self {
        let bound = crate::kmip::pem::base64(bound.as_bytes());
        Self {
            before: "{\"plaintext\":\"".to_owned(),
            key: Some(key),
            after: format!("\",\"associated_data\":{}}}", quoted(&bound)),
        }
    }

    fn len(&self) -> usize {
        let key = self.key.map_or(0, |key| OpaqueKey::base64_len(key.key_len()));
        self.before.len() + key + self.after.len()
    }

    fn write(&self, bytes: &mut Vec<u8>) -> Result<(), KeyError> {
        bytes.extend_from_slice(self.before.as_bytes());
        if let Some(key) = self.key {
            let start = bytes.len();
            bytes.resize(start + OpaqueKey::base64_len(key.key_len()), 0);
            key.write_base64(bytes.get_mut(start..).unwrap_or_default())?;
        }
        bytes.extend_from_slice(self.after.as_bytes());
        Ok(())
    }
}

impl Request<'_> {
    /// The bytes for the server at `host`, `name:port`.
    pub(super) fn encode(&self, host: &str) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let Self { method, path, .. } = self;
        let before = format!(
            "{method} /v1/{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: coffer\r\nAccept: application/json\r\n\
             X-Vault-Request: true\r\n"
        );
        let namespace = self.namespace.map(|name| format!("X-Vault-Namespace: {name}\r\n"));
        let namespace = namespace.unwrap_or_default();
        let token = self.token.map_or(["", "", ""], |token| ["X-Vault-Token: ", token, "\r\n"]);
        let length = self.body.len();
        let end = match length {
            0 => "\r\n".to_owned(),
            _ => format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"),
        };
        let parts = [before.as_str(), &namespace, token[0], token[1], token[2], &end];
        // Never grown, so that no copy is left behind.
        let whole = parts.iter().map(|part| part.len()).sum::<usize>() + length;
        let mut bytes = Zeroizing::new(Vec::with_capacity(whole));
        parts.iter().for_each(|part| bytes.extend_from_slice(part.as_bytes()));
        self.body.write(&mut bytes)?;
        debug_assert_eq!(bytes.len(), whole);
        Ok(bytes)
    }
}

/// A text as JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::Arena;

    fn encoded(request: &Request<'_>) -> String {
        String::from_utf8(request.encode("bao1:8200").unwrap().to_vec()).unwrap()
    }

    #[test]
    fn a_request_has_its_exact_size_and_no_member_can_break_out_of_its_quotes() {
        let mut request = Request {
            method: "POST",
            path: "auth/cert/login",
            token: None,
            namespace: None,
            body: Body::texts(&[("name", "a\"},\r\n{")]),
        };
        let text = encoded(&request);
        assert!(text.starts_with("POST /v1/auth/cert/login HTTP/1.1\r\nHost: bao1:8200\r\n"));
        let body = r#"{"name":"a\"},\r\n{"}"#;
        let length = body.len();
        assert!(text.ends_with(&format!("Content-Length: {length}\r\n\r\n{body}")), "{text}");
        assert!(!text.contains("X-Vault-Token") && !text.contains("X-Vault-Namespace"));
        request =
            Request { method: "GET", token: Some("s.1"), namespace: Some("team/"), ..request };
        request.body = Body::default();
        let text = encoded(&request);
        assert!(text.contains("\r\nX-Vault-Namespace: team/\r\nX-Vault-Token: s.1\r\n\r\n"));
    }

    #[test]
    fn a_key_is_written_where_it_belongs() {
        let arena = Arena::new(64 * 1024).unwrap();
        let key = OpaqueKey::generate(32, &arena).unwrap();
        let mut code = vec![0; 44];
        key.write_base64(&mut code).unwrap();
        let code = String::from_utf8(code).unwrap();
        let body = Body::plaintext(&key, "coffer v1 home x");
        let request =
            Request { method: "POST", path: "t/encrypt/k", token: None, namespace: None, body };
        let bytes = request.encode("h").unwrap();
        assert_eq!(bytes.len(), bytes.capacity());
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let body =
            format!(r#"{{"plaintext":"{code}","associated_data":"Y29mZmVyIHYxIGhvbWUgeA=="}}"#);
        assert!(text.ends_with(&body), "{text}");
    }
}
