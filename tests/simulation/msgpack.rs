//! As much MessagePack as the facts of a seat need, in both directions.

use mlua::{IntoLua, Lua, Table, Value};

#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Text(Vec<u8>),
    Number(f64),
    Flag(bool),
}

impl IntoLua for Item {
    fn into_lua(self, lua: &Lua) -> mlua::Result<Value> {
        Ok(match self {
            Self::Text(text) => Value::String(lua.create_string(text)?),
            Self::Number(number) => Value::Number(number),
            Self::Flag(flag) => Value::Boolean(flag),
        })
    }
}

pub fn pack(facts: &Table) -> mlua::Result<Vec<u8>> {
    let mut pairs = Vec::new();
    for pair in facts.pairs::<String, Value>() {
        pairs.push(pair?);
    }
    // A table has no order of its own; the same facts are the same bytes.
    pairs.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    let mut packed = vec![0xde];
    packed.extend((pairs.len() as u16).to_be_bytes());
    for (name, value) in pairs {
        text(&mut packed, name.as_bytes());
        match value {
            Value::String(value) => text(&mut packed, &value.as_bytes()),
            Value::Boolean(flag) => packed.push(if flag { 0xc3 } else { 0xc2 }),
            Value::Integer(number) => number_of(&mut packed, number as f64),
            Value::Number(number) => number_of(&mut packed, number),
            other => return Err(mlua::Error::runtime(format!("cannot pack {other:?}"))),
        }
    }
    Ok(packed)
}

fn text(packed: &mut Vec<u8>, text: &[u8]) {
    packed.push(0xda);
    packed.extend((text.len() as u16).to_be_bytes());
    packed.extend(text);
}

fn number_of(packed: &mut Vec<u8>, number: f64) {
    packed.push(0xcb);
    packed.extend(number.to_be_bytes());
}

/// The facts, in the order of their names.
pub fn unpack(packed: &[u8]) -> Vec<(String, Item)> {
    let (count, mut rest) = (length(&packed[1..]), &packed[3..]);
    let mut take = |count: usize| {
        let (taken, left) = rest.split_at(count);
        rest = left;
        taken.to_vec()
    };
    let mut facts = Vec::with_capacity(count);
    for _ in 0..count {
        let size = length(&take(3)[1..]);
        let name = String::from_utf8(take(size)).unwrap();
        let item = match take(1)[0] {
            0xc2 => Item::Flag(false),
            0xc3 => Item::Flag(true),
            0xcb => Item::Number(f64::from_be_bytes(take(8).try_into().unwrap())),
            0xda => {
                let size = length(&take(2));
                Item::Text(take(size))
            }
            other => panic!("{other:#x} is not written here"),
        };
        facts.push((name, item));
    }
    facts
}

fn length(bytes: &[u8]) -> usize {
    u16::from_be_bytes([bytes[0], bytes[1]]).into()
}
