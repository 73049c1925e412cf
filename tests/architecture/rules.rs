//! The tables of ARCHITECTURE.md, and what they say about a file.

use super::paths::Code;

type Module = Vec<String>;

/// What the tables allow.
#[derive(Debug, Default)]
pub struct Rules {
    /// A room and the modules or items that it may use.
    rooms: Vec<(Module, Vec<Module>)>,
    /// A crate and the only rooms that may use it.
    crates: Vec<(String, Vec<Module>)>,
    /// The end of a path, such as `Timestamp::now`, and the only rooms that may write it.
    calls: Vec<(Module, Vec<Module>)>,
}

impl Rules {
    /// Reads the three tables between their markers.
    pub fn read(text: &str) -> Self {
        let arrows = table(text, "arrows");
        let rooms = arrows.iter().map(|row| (module(&row[0]), modules(&row[2]))).collect();
        let crates = table(text, "crates");
        let crates = crates.iter().map(|row| (row[0].clone(), modules(&row[1]))).collect();
        let calls = table(text, "calls");
        let calls = calls
            .iter()
            .flat_map(|row| modules(&row[0]).into_iter().map(|call| (call, modules(&row[1]))))
            .collect();
        Self { rooms, crates, calls }
    }

    pub fn rooms(&self) -> impl Iterator<Item = &Module> {
        self.rooms.iter().map(|(room, _)| room)
    }

    /// The innermost room that a module lies in, and what that may use.
    pub fn room_of(&self, module: &[String]) -> Option<&(Module, Vec<Module>)> {
        let around = self.rooms.iter().filter(|(room, _)| module.starts_with(room));
        around.max_by_key(|(room, _)| room.len())
    }

    /// What a file breaks: line and description.
    pub fn judge(&self, module: &[String], code: &Code) -> Vec<(usize, String)> {
        let mut found = Vec::new();
        for (line, name) in &code.inline_modules {
            found.push((*line, format!("`mod {name} {{…}}` is inline: give it a file")));
        }
        if module.is_empty() {
            // The root only declares the rooms.
            return found;
        }
        let Some((room, may_use)) = self.room_of(module) else {
            found.push((1, format!("`{}` has no room in the table", module.join("::"))));
            return found;
        };
        let room_name = room.join("::");
        for path in &code.paths {
            if let Some(target) = path.in_crate(module) {
                let own = self.is_around(room, &target)
                    || may_use.iter().any(|allowed| target.starts_with(allowed));
                if !own {
                    let target = target.join("::");
                    let target = if target.is_empty() { "*" } else { &target };
                    found.push((path.line, format!("`{room_name}` may not use `crate::{target}`")));
                }
            } else if let Some((name, only_in)) =
                self.crates.iter().find(|(name, _)| path.segments.first() == Some(name))
                && !only_in.iter().any(|only| module.starts_with(only))
            {
                found.push((path.line, format!("`{room_name}` may not use the crate `{name}`")));
            }
            for (call, only_in) in &self.calls {
                if path.segments.windows(call.len()).any(|part| part == call.as_slice())
                    && !only_in.iter().any(|only| module.starts_with(only))
                {
                    let call = call.join("::");
                    found.push((path.line, format!("`{room_name}` may not use `{call}`")));
                }
            }
        }
        found
    }

    /// Whether `target` lies in the room itself, in a room inside it, or in one around it: not in
    /// one beside it.
    fn is_around(&self, room: &[String], target: &[String]) -> bool {
        target.starts_with(room)
            || self.room_of(target).is_some_and(|(around, _)| room.starts_with(around))
    }
}

/// The body rows of the table between `<!-- name -->` and `<!-- /name -->`, without backticks.
fn table(text: &str, name: &str) -> Vec<Vec<String>> {
    let (start, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let after = text.split_once(&start).unwrap_or_else(|| panic!("{start} is missing")).1;
    let inside = after.split_once(&end).unwrap_or_else(|| panic!("{end} is missing")).0;
    let rows: Vec<Vec<String>> = inside
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().replace('`', "")).collect()
        })
        .collect();
    assert!(!rows.is_empty(), "the table {name} is empty");
    rows
}

fn module(text: &str) -> Module {
    text.trim().split("::").map(str::to_owned).collect()
}

/// `a, b::c` or `–` for none.
fn modules(cell: &str) -> Vec<Module> {
    cell.split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty() && *name != "–")
        .map(module)
        .collect()
}
