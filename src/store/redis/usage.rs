//! Usage by hours and months, and who was seen.
//!
//! The counts of an hour or month are a hash; who was seen is a set in the order of the members'
//! bytes: tenant, licence, class, user, month.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;

use super::forms::unreadable;
use super::{Redis, keys};
use crate::engine::{Arguments, Script};
use crate::seat::SessionClass;
use crate::store::Result;
use crate::store::usage::{
    Counts, MarkPlace, MarkQuery, Month, Pseudonym, Span, UsageBatch, UsageRecord, UserMark,
};

/// Marks that are read in one go.
const PIECE: u32 = 1_000;

/// Stands between the parts of a member; no name of a tenant or licence has it.
const BETWEEN: char = '\0';

static ADD: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/add_usage.lua")));
static PURGE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/purge_usage.lua")));

const MARKS: &str = "marks";

fn spans() -> [String; 2] {
    [Span::Hour, Span::Month].map(|span| keys::home(&format!("usage:{}", span.number())))
}

fn counts_key(span: Span, start: i64) -> String {
    keys::home(&format!("counts:{}:{start}", span.number()))
}

fn marks_keys() -> [String; 4] {
    [MARKS, "mark_months", "mark_days", "mark_names"].map(keys::home)
}

impl Redis {
    pub(super) async fn append_usage(&self, batch: &UsageBatch) -> Result<()> {
        let mut slots = vec![keys::home("batches")];
        slots.extend(spans());
        slots.extend(marks_keys());
        let mut arguments = Arguments::new().with(batch.id.as_slice());
        for record in &batch.records {
            let start = record.start.as_second();
            slots.push(counts_key(record.span, start));
            let index = slots.len();
            arguments = arguments.with("record").with(index);
            arguments = arguments.with(record.span.number()).with(start);
            for (kind, counts) in [("sum", &record.counts.sums), ("peak", &record.counts.peaks)] {
                for (name, value) in counts {
                    let field = (&*record.tenant, &*record.licence, kind, name);
                    let field = serde_json::to_string(&field).map_err(unreadable)?;
                    arguments = arguments.with(kind).with(index).with(field).with(*value);
                }
            }
        }
        for mark in &batch.marks {
            let member = member(mark);
            arguments = arguments.with("mark").with(&member).with(mark.month.0);
            arguments = arguments.with(mark.opened).with(mark.refused);
            if let Some(name) = &mark.name {
                arguments = arguments.with("name").with(&member).with(&**name);
            }
        }
        self.engine.call::<()>(&ADD, &slots, &arguments).await?;
        Ok(())
    }

    pub(super) async fn each_usage(
        &self,
        span: Span,
        from: Timestamp,
        to: Timestamp,
        each: &mut (dyn FnMut(UsageRecord) + Send),
    ) -> Result<()> {
        let [hours, months] = spans();
        let asked = ::redis::cmd("ZRANGE")
            .arg(if span == Span::Hour { hours } else { months })
            .arg(from.as_second())
            .arg(format!("({}", to.as_second()))
            .arg("BYSCORE")
            .to_owned();
        let starts: Vec<i64> = self.engine.run(&asked).await?;
        for second in starts {
            let start = Timestamp::from_second(second).map_err(unreadable)?;
            let asked = ::redis::cmd("HGETALL").arg(counts_key(span, second)).to_owned();
            let fields: BTreeMap<String, u64> = self.engine.run(&asked).await?;
            let mut counted: BTreeMap<(String, String), Counts> = BTreeMap::new();
            for (field, value) in fields {
                let (tenant, licence, kind, name): (String, String, String, String) =
                    serde_json::from_str(&field).map_err(unreadable)?;
                let counts = counted.entry((tenant, licence)).or_default();
                match &*kind {
                    "sum" => counts.sum(&name, value),
                    _ => counts.peak(&name, value),
                }
            }
            for ((tenant, licence), counts) in counted {
                let (tenant, licence) = (tenant.into(), licence.into());
                each(UsageRecord { span, start, tenant, licence, counts });
            }
        }
        Ok(())
    }

    pub(super) async fn each_mark(
        &self,
        query: &MarkQuery,
        each: &mut (dyn FnMut(UserMark) -> bool + Send),
    ) -> Result<()> {
        let [marks, _, days, names] = marks_keys();
        // Everything of a tenant begins with its name and what stands behind it.
        let (mut from, to) = match &query.tenant {
            Some(tenant) => (format!("[{tenant}{BETWEEN}"), format!("({tenant}\u{1}")),
            None => ("-".to_owned(), "+".to_owned()),
        };
        if let Some(MarkPlace { tenant, licence, class, user }) = &query.after {
            // Behind all of the user's months.
            let user = member_of(tenant, licence, *class, user);
            let behind = format!("({user}\u{1}");
            if from == "-" || behind.get(1..) > from.get(1..) {
                from = behind;
            }
        }
        loop {
            let asked = ::redis::cmd("ZRANGE")
                .arg(&marks)
                .arg(&from)
                .arg(&to)
                .arg("BYLEX")
                .arg("LIMIT")
                .arg(0)
                .arg(PIECE)
                .to_owned();
            let members: Vec<String> = self.engine.run(&asked).await?;
            let Some(last) = members.last() else { return Ok(()) };
            from = format!("({last}");
            let mut asked = ::redis::pipe();
            for key in [&days, &names] {
                asked.cmd("HMGET").arg(key).arg(&members);
            }
            let mut found: Vec<Vec<Option<String>>> = self.engine.run_all(&asked).await?;
            let (names, days) = (found.pop().unwrap_or_default(), found.pop().unwrap_or_default());
            for (member, (days, name)) in members.iter().zip(days.into_iter().zip(names)) {
                // One that was forgotten between the two is left out.
                let Some(days) = days else { continue };
                let mark = read(member, &days, name)?;
                if (query.from..=query.to).contains(&mark.month) && !each(mark) {
                    return Ok(());
                }
            }
        }
    }

    pub(super) async fn clear_usage(
        &self,
        before: Timestamp,
        with_names: bool,
        limit: u32,
    ) -> Result<u32> {
        let slots: Vec<String> = spans().into_iter().chain(marks_keys()).collect();
        let month = Month::of(before);
        let arguments = Arguments::new()
            .with(keys::home("counts:"))
            .with(before.as_second())
            .with(month.start().as_second())
            .with(month.0)
            .with(u8::from(with_names))
            .with(limit);
        Ok(self.engine.call(&PURGE, &slots, &arguments).await?)
    }
}

fn member(mark: &UserMark) -> String {
    let UserMark { tenant, licence, class, user, month, .. } = mark;
    format!("{}{BETWEEN}{:06}", member_of(tenant, licence, *class, user), month.0)
}

/// What a user's members begin with.
fn member_of(tenant: &str, licence: &str, class: SessionClass, user: &Pseudonym) -> String {
    let class = match class {
        SessionClass::Editor => 0,
        SessionClass::LiveViewer => 1,
        SessionClass::Viewer => 2,
    };
    let user: String = user.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{tenant}{BETWEEN}{licence}{BETWEEN}{class}{BETWEEN}{user}")
}

fn read(member: &str, days: &str, name: Option<String>) -> Result<UserMark> {
    let broken = || unreadable("a mark of a user");
    let parts: Vec<&str> = member.split(BETWEEN).collect();
    let [tenant, licence, class, user, month] = parts[..] else { return Err(broken()) };
    let number = u128::from_str_radix(user, 16).map_err(unreadable)?;
    let (opened, refused) = days.split_once(' ').ok_or_else(broken)?;
    Ok(UserMark {
        tenant: tenant.into(),
        licence: licence.into(),
        class: match class {
            "0" => SessionClass::Editor,
            "1" => SessionClass::LiveViewer,
            _ => SessionClass::Viewer,
        },
        user: number.to_be_bytes(),
        month: Month(month.parse().map_err(unreadable)?),
        name: name.map(Arc::from),
        opened: opened.parse().map_err(unreadable)?,
        refused: refused.parse().map_err(unreadable)?,
    })
}
