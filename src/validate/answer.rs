//! Outcomes to JSON, in Chinese and English.
//!
//! The wording of the seed `validate-api`, where it has one.

use serde::Serialize;

use super::request::Problem;
use crate::config::Language;
use crate::licence::Licence;
use crate::license_answer::write_date;

/// Why a licence key is not valid, or the call cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotFound,
    Expired,
    Revoked,
    MaxDevices,
    ServerError,
    Unauthorized,
    Invalid(Problem),
    RateLimited { retry_after_seconds: u32 },
}

/// The outcome of a call.
pub type Outcome = Result<std::sync::Arc<Licence>, Refusal>;

impl Refusal {
    /// The `reason` of the answer, and the `result` label of the metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "licence_not_found",
            Self::Expired => "licence_expired",
            Self::Revoked => "licence_revoked",
            Self::MaxDevices => "max_devices_reached",
            Self::ServerError => "server_error",
            Self::Unauthorized => "unauthorized",
            Self::Invalid(_) => "invalid_request",
            Self::RateLimited { .. } => "rate_limited",
        }
    }

    /// Whether the client address is to be blamed for it. Not for our own failures, for calls that
    /// were not looked into, or for a method that no key can be tried with.
    pub fn counts_as_failure(self) -> bool {
        match self {
            Self::NotFound
            | Self::Expired
            | Self::Revoked
            | Self::MaxDevices
            | Self::Unauthorized
            | Self::Invalid(_) => self != Self::Invalid(Problem::Method),
            Self::ServerError | Self::RateLimited { .. } => false,
        }
    }

    /// What a person reads.
    pub fn message(self, language: Language) -> String {
        let (zh, en) = match self {
            Self::NotFound => ("许可证不存在", "The licence does not exist"),
            Self::Expired => ("许可证已过期", "The licence has expired"),
            Self::Revoked => ("许可证已被撤销", "The licence has been revoked"),
            Self::MaxDevices => {
                ("已达到最大设备数量限制", "The maximum number of devices has been reached")
            }
            Self::ServerError => ("服务器内部错误", "Internal server error"),
            Self::Unauthorized => ("应用ID或API密钥无效", "The app id or the API key is not valid"),
            Self::RateLimited { .. } => {
                ("失败的请求过多，请稍后再试", "Too many failed requests, try again later")
            }
            Self::Invalid(problem) => return invalid(problem, language),
        };
        pick(language, zh, en).to_owned()
    }
}

fn invalid(problem: Problem, language: Language) -> String {
    let (field, zh, en) = match problem {
        Problem::Method => {
            return pick(language, "请使用 POST 方法", "Use the POST method").to_owned();
        }
        Problem::TooLarge => {
            let (zh, en) = ("请求体超过 64 KiB", "The body has more than 64 KiB");
            return pick(language, zh, en).to_owned();
        }
        Problem::TooSlow => {
            let (zh, en) = ("请求体未及时到达", "The body did not arrive in time");
            return pick(language, zh, en).to_owned();
        }
        Problem::MediaType => {
            let zh = "Content-Type 必须是 application/json";
            return pick(language, zh, "Content-Type must be application/json").to_owned();
        }
        Problem::NotJson => {
            let (zh, en) = ("请求体不是有效的 JSON", "The body is not valid JSON");
            return pick(language, zh, en).to_owned();
        }
        Problem::NotAnObject => {
            let (zh, en) = ("请求体必须是 JSON 对象", "The body must be a JSON object");
            return pick(language, zh, en).to_owned();
        }
        Problem::Missing(field) => (field, "缺失", "is missing"),
        Problem::Twice(field) => (field, "重复出现", "is there twice"),
        Problem::NotAString(field) => (field, "必须是字符串", "must be a string"),
        Problem::Empty(field) => (field, "不能为空", "must not be empty"),
        Problem::TooLong(field) => {
            (field, "不能超过 256 个字符", "must not have more than 256 characters")
        }
    };
    let said = pick(language, zh, en);
    format!("{} {said}", field.name())
}

fn pick(language: Language, zh: &'static str, en: &'static str) -> &'static str {
    match language {
        Language::Zh => zh,
        Language::En => en,
    }
}

/// The `result` label of an outcome.
pub fn label(outcome: &Outcome) -> &'static str {
    match outcome {
        Ok(_) => "valid",
        Err(refusal) => refusal.reason(),
    }
}

/// Every `result` label.
pub const LABELS: [&str; 9] = [
    "valid",
    "licence_not_found",
    "licence_expired",
    "licence_revoked",
    "max_devices_reached",
    "unauthorized",
    "invalid_request",
    "rate_limited",
    "server_error",
];

/// The fields of the seed, in its order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Valid<'a> {
    valid: bool,
    message: &'static str,
    licence_id: &'a str,
    issued_to: &'a str,
    expiry_date: Option<String>,
    features: &'a [String],
}

#[derive(Serialize)]
struct Invalid {
    valid: bool,
    reason: &'static str,
    message: String,
}

/// The JSON of an outcome.
pub fn body(outcome: &Outcome, language: Language) -> Vec<u8> {
    let written = match outcome {
        Ok(licence) => serde_json::to_vec(&Valid {
            valid: true,
            message: pick(language, "许可证验证成功", "The licence is valid"),
            licence_id: &licence.id,
            issued_to: &licence.issued_to,
            expiry_date: licence.end.map(|end| {
                let mut date = Vec::with_capacity(24);
                write_date(&mut date, end);
                String::from_utf8_lossy(&date).into_owned()
            }),
            features: &licence.features,
        }),
        Err(refusal) => serde_json::to_vec(&Invalid {
            valid: false,
            reason: refusal.reason(),
            message: refusal.message(language),
        }),
    };
    // Texts and lists of texts are always JSON.
    written.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::licence::Quota;
    use crate::licence::tests::{at, licence};
    use crate::validate::request::Field;

    fn text(outcome: &Outcome, language: Language) -> String {
        String::from_utf8(body(outcome, language)).unwrap()
    }

    #[test]
    fn success_is_the_seeds() {
        let terms = Licence {
            issued_to: "公司名称".to_owned(),
            end: Some(at("2026-08-24T00:00:00Z")),
            features: vec!["feature1".to_owned(), "feature2".to_owned()],
            ..licence(Quota::default())
        };
        assert_eq!(
            text(&Ok(Arc::new(terms)), Language::Zh),
            concat!(
                r#"{"valid":true,"message":"许可证验证成功","licenceId":"60f8a5d3e13823687d3e9c24","#,
                r#""issuedTo":"公司名称","expiryDate":"2026-08-24T00:00:00.000Z","#,
                r#""features":["feature1","feature2"]}"#
            )
        );
        let perpetual = Ok(Arc::new(licence(Quota::default())));
        assert!(text(&perpetual, Language::En).ends_with(r#""expiryDate":null,"features":[]}"#));
    }

    #[test]
    fn refusals_have_the_seeds_words() {
        for (refusal, reason, zh) in [
            (Refusal::NotFound, "licence_not_found", "许可证不存在"),
            (Refusal::Expired, "licence_expired", "许可证已过期"),
            (Refusal::Revoked, "licence_revoked", "许可证已被撤销"),
            (Refusal::MaxDevices, "max_devices_reached", "已达到最大设备数量限制"),
            (Refusal::ServerError, "server_error", "服务器内部错误"),
        ] {
            let expected = format!(r#"{{"valid":false,"reason":"{reason}","message":"{zh}"}}"#);
            assert_eq!(text(&Err(refusal), Language::Zh), expected);
            assert!(refusal.message(Language::En).is_ascii());
            assert!(LABELS.contains(&refusal.reason()));
        }
        for field in [Field::LicenceKey, Field::DeviceId] {
            for problem in [Problem::Missing(field), Problem::TooLong(field)] {
                for language in [Language::Zh, Language::En] {
                    let message = Refusal::Invalid(problem).message(language);
                    assert!(message.starts_with(field.name()), "{message}");
                }
            }
        }
    }
}
