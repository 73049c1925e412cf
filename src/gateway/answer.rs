//! Answers of the gateway's own: JSON for programs, a short page for people.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::proxy::Session;
use tokio::time::timeout;

use super::front;

/// How long a client may go on sending a body that nobody reads, after the answer.
const LINGER: Duration = Duration::from_secs(5);

/// An answer that is whole before it is sent.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub content_type: &'static str,
    pub body: Bytes,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// Whether the connection may be used for another request, if the client wants that.
    pub keep_alive: bool,
}

impl Answer {
    /// A JSON answer with status 200.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "application/json",
            body: body.into(),
            headers: Vec::new(),
            keep_alive: true,
        }
    }

    /// A refusal in the form that the client accepts: JSON with `error` and `message`, or a page.
    pub fn refusal(status: StatusCode, error: &str, message: &str, headers: &HeaderMap) -> Self {
        let (content_type, body) = if accepts_html(headers) {
            ("text/html; charset=utf-8", page(status, message))
        } else {
            let body = serde_json::json!({ "error": error, "message": message });
            ("application/json", body.to_string())
        };
        Self { status, content_type, body: body.into(), headers: Vec::new(), keep_alive: false }
    }

    /// Sends the answer. The body is left out for `HEAD`.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn send(self, session: &mut Session) -> pingora::Result<()> {
        let mut head = ResponseHeader::build(self.status, Some(4 + self.headers.len()))?;
        head.insert_header(header::CONTENT_TYPE, self.content_type)?;
        head.insert_header(header::CONTENT_LENGTH, self.body.len())?;
        if !self.status.is_success() {
            head.insert_header(header::CACHE_CONTROL, "no-store")?;
        }
        for (name, value) in self.headers {
            head.insert_header(name, value)?;
        }
        if self.keep_alive {
            front::end_if_last(session);
        } else {
            session.set_keepalive(None);
        }
        let bodiless = self.body.is_empty() || session.req_header().method == http::Method::HEAD;
        session.write_response_header(Box::new(head), bodiless).await?;
        if !bodiless {
            session.write_response_body(Some(self.body), true).await?;
        }
        if session.get_keepalive().is_none() {
            linger(session).await;
        }
        Ok(())
    }
}

/// Ends our side of a connection and reads what the client still sends (RFC 9112, section 9.6): a
/// connection that is closed with bytes unread is reset, and the answer can be lost with it.
async fn linger(session: &mut Session) {
    if let ServerSession::H1(session) = session.as_downstream_mut()
        && !session.is_body_done()
    {
        let lingering = async {
            session.shutdown().await;
            let _ = session.drain_request_body().await;
        };
        let _ = timeout(LINGER, lingering).await;
    }
}

/// Whether the client would rather read a page: `text/html` is accepted by name, and not as a
/// worse choice than JSON.
fn accepts_html(headers: &HeaderMap) -> bool {
    let Some(accept) = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()) else {
        return false;
    };
    let quality = |wanted: &str| {
        accept.split(',').find_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            if !parts.next()?.eq_ignore_ascii_case(wanted) {
                return None;
            }
            let stated = parts.find_map(|part| part.strip_prefix("q="));
            Some(stated.and_then(|q| q.parse::<f32>().ok()).unwrap_or(1.0))
        })
    };
    let html = quality("text/html").unwrap_or(0.0);
    html > 0.0 && html >= quality("application/json").unwrap_or(0.0)
}

fn page(status: StatusCode, message: &str) -> String {
    let title = status.canonical_reason().unwrap_or("Error");
    let code = status.as_u16();
    let message = escape_html(message);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{code} {title}</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:15vh auto;\
         padding:0 1rem;color-scheme:light dark}}</style></head>\n\
         <body><h1>{title}</h1><p>{message}</p></body>\n</html>\n"
    )
}

fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(accept: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        headers
    }

    #[test]
    fn people_get_a_page_and_programs_get_json() {
        for (accept, html) in [
            ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", true),
            ("application/json, text/html;q=0.5", false),
            ("application/json", false),
            ("*/*", false),
            ("text/html;q=0", false),
        ] {
            assert_eq!(accepts_html(&headers(accept)), html, "{accept}");
        }
        let answer =
            Answer::refusal(StatusCode::BAD_GATEWAY, "upstream", "<b>&\"", &headers("text/html"));
        let body = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(body.contains("&lt;b&gt;&amp;&quot;") && body.contains("502"), "{body}");
    }
}
