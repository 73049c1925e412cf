//! The script `seats.lua` itself, in Lua 5.1 as a Redis embeds it, over a [`Keyspace`].

use std::sync::Arc;

use mlua::{Error, Function, IntoLua as _, Lua, LuaOptions, MultiValue, StdLib, Table, Value};
use parking_lot::Mutex;

use super::keyspace::{Bytes, Keyspace, Reply};
use super::msgpack;

/// What a script works on.
#[derive(Debug, Default)]
pub struct Ground {
    pub keys: Keyspace,
    /// The server's clock, in microseconds.
    pub microseconds: u64,
    /// Channel and message, as they were published.
    pub published: Vec<(Bytes, Bytes)>,
    /// Counts the choices that a server makes by chance.
    pub choices: usize,
}

impl Ground {
    pub fn apply(&mut self, command: &[Bytes]) -> Reply {
        if command[0].eq_ignore_ascii_case(b"TIME") {
            let part = |number: u64| Reply::Bulk(number.to_string().into_bytes());
            let microseconds = self.microseconds;
            return Reply::Array(vec![
                part(microseconds / 1_000_000),
                part(microseconds % 1_000_000),
            ]);
        }
        if command[0].eq_ignore_ascii_case(b"PUBLISH") {
            self.published.push((command[1].clone(), command[2].clone()));
            return Reply::Integer(1);
        }
        let choices = &mut self.choices;
        self.keys.apply(command, |among| {
            *choices = choices.wrapping_mul(31).wrapping_add(7);
            *choices % among
        })
    }
}

/// A script, ready to run.
pub struct Script {
    lua: Lua,
    body: Function,
}

impl Script {
    pub fn new(source: &str, ground: Arc<Mutex<Ground>>) -> Self {
        let libraries = StdLib::TABLE | StdLib::STRING | StdLib::MATH;
        let lua = Lua::new_with(libraries, LuaOptions::default()).unwrap();
        Self::furnish(&lua, ground).unwrap();
        let body = lua.load(source).set_name("=seats.lua").into_function().unwrap();
        Self { lua, body }
    }

    /// What a Redis gives its scripts.
    fn furnish(lua: &Lua, ground: Arc<Mutex<Ground>>) -> mlua::Result<()> {
        let globals = lua.globals();
        let redis = lua.create_table()?;
        redis.set(
            "call",
            lua.create_function(move |lua, arguments: MultiValue| {
                let command: mlua::Result<Vec<Bytes>> = arguments.iter().map(argument).collect();
                let reply = ground.lock().apply(&command?);
                if let Reply::Error(error) = reply {
                    return Err(Error::runtime(error));
                }
                into_lua(lua, reply)
            })?,
        )?;
        redis.set(
            "error_reply",
            lua.create_function(|lua, text: mlua::LuaString| {
                let table = lua.create_table()?;
                table.set("err", text)?;
                Ok(table)
            })?,
        )?;
        globals.set("redis", redis)?;
        let packer = lua.create_table()?;
        packer.set(
            "pack",
            lua.create_function(|lua, facts: Table| lua.create_string(msgpack::pack(&facts)?))?,
        )?;
        packer.set(
            "unpack",
            lua.create_function(|lua, packed: mlua::LuaString| {
                let table = lua.create_table()?;
                for (name, value) in msgpack::unpack(&packed.as_bytes()) {
                    table.set(name, value.into_lua(lua)?)?;
                }
                Ok(table)
            })?,
        )?;
        globals.set("cmsgpack", packer)?;
        globals.set("KEYS", lua.create_table()?)?;
        globals.set("ARGV", lua.create_table()?)?;
        // A script that makes a global, or asks for one that is not there, fails.
        let guard = lua.create_table()?;
        let forbidden = lua.create_function(|_, (_, name): (Table, String)| {
            Err::<Value, _>(Error::runtime(format!("ERR global {name}")))
        })?;
        guard.set("__newindex", &forbidden)?;
        guard.set("__index", forbidden)?;
        globals.set_metatable(Some(guard))
    }

    /// Runs it; in one step.
    pub fn run(&self, keys: &[Bytes], arguments: &[Bytes]) -> Reply {
        self.try_run(keys, arguments).unwrap_or_else(|error| Reply::Error(error.to_string()))
    }

    fn try_run(&self, keys: &[Bytes], arguments: &[Bytes]) -> mlua::Result<Reply> {
        let strings = |all: &[Bytes]| {
            let all: mlua::Result<Vec<_>> =
                all.iter().map(|one| self.lua.create_string(one)).collect();
            self.lua.create_sequence_from(all?)
        };
        let globals = self.lua.globals();
        globals.raw_set("KEYS", strings(keys)?)?;
        globals.raw_set("ARGV", strings(arguments)?)?;
        let answer: Value = self.body.call(())?;
        from_lua(&answer)
    }
}

/// An argument of a command: numbers are written as exactly as they are.
fn argument(value: &Value) -> mlua::Result<Bytes> {
    match value {
        Value::String(text) => Ok(text.as_bytes().to_vec()),
        Value::Integer(number) => Ok(number.to_string().into_bytes()),
        Value::Number(number) => Ok(number.to_string().into_bytes()),
        _ => Err(Error::runtime("ERR Lua redis lib command arguments must be strings or integers")),
    }
}

fn into_lua(lua: &Lua, reply: Reply) -> mlua::Result<Value> {
    Ok(match reply {
        Reply::Nil => Value::Boolean(false),
        #[expect(clippy::cast_precision_loss, reason = "all numbers of Lua 5.1 are such")]
        Reply::Integer(number) => Value::Number(number as f64),
        Reply::Bulk(text) => Value::String(lua.create_string(text)?),
        Reply::Status(text) => {
            let table = lua.create_table()?;
            table.set("ok", text)?;
            Value::Table(table)
        }
        Reply::Array(items) => {
            let items: mlua::Result<Vec<Value>> =
                items.into_iter().map(|item| into_lua(lua, item)).collect();
            Value::Table(lua.create_sequence_from(items?)?)
        }
        Reply::Error(error) => return Err(Error::runtime(error)),
    })
}

fn from_lua(value: &Value) -> mlua::Result<Reply> {
    Ok(match value {
        Value::Nil | Value::Boolean(false) => Reply::Nil,
        Value::Boolean(true) => Reply::Integer(1),
        Value::Integer(number) => Reply::Integer(*number),
        #[expect(clippy::cast_possible_truncation, reason = "as a Redis does")]
        Value::Number(number) => Reply::Integer(*number as i64),
        Value::String(text) => Reply::Bulk(text.as_bytes().to_vec()),
        Value::Table(table) => {
            if let Ok(Some(error)) = table.raw_get::<Option<String>>("err") {
                return Ok(Reply::Error(error));
            }
            let mut items = Vec::new();
            // Up to the first hole.
            for at in 1.. {
                match table.raw_get::<Value>(at)? {
                    Value::Nil => break,
                    item => items.push(from_lua(&item)?),
                }
            }
            Reply::Array(items)
        }
        _ => return Err(Error::runtime("ERR no answer")),
    })
}
