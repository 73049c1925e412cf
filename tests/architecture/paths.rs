//! A small reader of Rust sources: every path outside comments, strings and code for tests.

/// A path as it stands in the source, `use` trees spread out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedPath {
    pub line: usize,
    pub segments: Vec<String>,
}

impl UsedPath {
    /// The path from the crate's root, if that is where it leads from `module`.
    pub fn in_crate(&self, module: &[String]) -> Option<Vec<String>> {
        let (first, rest) = self.segments.split_first()?;
        match first.as_str() {
            "crate" | "seatgate" => Some(rest.to_vec()),
            "self" => Some([module, rest].concat()),
            "super" => {
                let up = self.segments.iter().take_while(|segment| *segment == "super").count();
                let base = module.get(..module.len().checked_sub(up)?)?;
                Some([base, &self.segments[up..]].concat())
            }
            _ => None,
        }
    }
}

/// What matters of one file.
#[derive(Debug, Default)]
pub struct Code {
    pub paths: Vec<UsedPath>,
    /// Names of `#[cfg(test)] mod name;`.
    pub test_modules: Vec<String>,
    /// Modules with a body in this file, tests apart.
    pub inline_modules: Vec<(usize, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Colons,
    Sign(char),
}

struct Placed {
    line: usize,
    token: Token,
}

impl Code {
    pub fn read(text: &str) -> Self {
        let mut code = Self::default();
        let tokens = code.without_tests(tokens(text));
        let mut at = 0;
        while at < tokens.len() {
            at = code.read_at(&tokens, at);
        }
        code
    }

    /// Takes a path, a `use` tree or one other token; returns where to go on.
    fn read_at(&mut self, tokens: &[Placed], at: usize) -> usize {
        let is =
            |at: usize, token: &Token| tokens.get(at).is_some_and(|found| found.token == *token);
        let Some(Placed { line, token }) = tokens.get(at) else { return at + 1 };
        match token {
            Token::Word(word) if word == "use" => self.read_tree(tokens, at + 1, &[]),
            Token::Word(word) if word == "mod" => {
                if let Some(Token::Word(name)) = tokens.get(at + 1).map(|next| &next.token)
                    && is(at + 2, &Token::Sign('{'))
                {
                    self.inline_modules.push((*line, name.clone()));
                }
                at + 1
            }
            // A method or a field is no path.
            Token::Sign('.') => at + 2,
            Token::Word(first) => {
                let mut segments = vec![first.clone()];
                let mut end = at + 1;
                while is(end, &Token::Colons)
                    && let Some(Token::Word(next)) = tokens.get(end + 1).map(|next| &next.token)
                {
                    segments.push(next.clone());
                    end += 2;
                }
                if segments.len() > 1 {
                    self.paths.push(UsedPath { line: *line, segments });
                }
                end
            }
            Token::Colons | Token::Sign(_) => at + 1,
        }
    }

    /// Reads one tree of a `use`, whose path so far is `before`; returns where it ends.
    fn read_tree(&mut self, tokens: &[Placed], start: usize, before: &[String]) -> usize {
        let mut segments = before.to_vec();
        let mut at = start;
        let mut line = tokens.get(start).map_or(0, |token| token.line);
        while let Some(Placed { line: here, token }) = tokens.get(at) {
            match token {
                Token::Word(word) if word == "as" => {
                    // The new name leads nowhere else.
                    at += 2;
                    continue;
                }
                Token::Word(word) => {
                    line = *here;
                    segments.push(word.clone());
                }
                Token::Sign('*') => segments.push("*".to_owned()),
                Token::Sign('{') => {
                    at += 1;
                    while tokens.get(at).is_some_and(|next| next.token != Token::Sign('}')) {
                        at = self.read_tree(tokens, at, &segments);
                        if tokens.get(at).is_some_and(|next| next.token == Token::Sign(',')) {
                            at += 1;
                        }
                    }
                    return at + 1;
                }
                Token::Colons => {}
                Token::Sign(_) => break,
            }
            at += 1;
        }
        if segments.len() > 1 && segments.last().is_some_and(|last| last == "self" || last == "*") {
            segments.pop();
        }
        self.paths.push(UsedPath { line, segments });
        at
    }

    /// Takes every item away that has `#[cfg(test)]` before it.
    fn without_tests(&mut self, tokens: Vec<Placed>) -> Vec<Placed> {
        const ATTRIBUTE: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
        let is_test = |at: usize| {
            ATTRIBUTE.iter().enumerate().all(|(offset, wanted)| {
                tokens.get(at + offset).is_some_and(|found| match &found.token {
                    Token::Word(word) => word == wanted,
                    Token::Sign(sign) => wanted.chars().eq([*sign]),
                    Token::Colons => false,
                })
            })
        };
        let mut skip = vec![false; tokens.len()];
        let mut at = 0;
        while at < tokens.len() {
            if !is_test(at) {
                at += 1;
                continue;
            }
            let item = at + ATTRIBUTE.len();
            let end = end_of_item(&tokens, item);
            // Its visibility may stand in front.
            if let [.., Token::Word(word), Token::Word(name), Token::Sign(';')] = tokens[item..end]
                .iter()
                .map(|placed| placed.token.clone())
                .collect::<Vec<_>>()
                .as_slice()
                && word == "mod"
            {
                self.test_modules.push(name.clone());
            }
            skip[at..end].fill(true);
            at = end;
        }
        let mut skip = skip.into_iter();
        tokens.into_iter().filter(|_| !skip.next().unwrap_or(false)).collect()
    }
}

/// Behind the item that starts at `at`: its `;` or its body, whichever comes first.
fn end_of_item(tokens: &[Placed], at: usize) -> usize {
    let mut depth = 0_i32;
    for (offset, placed) in tokens[at..].iter().enumerate() {
        match placed.token {
            Token::Sign('{' | '(' | '[') => depth += 1,
            Token::Sign('}' | ')' | ']') => {
                depth -= 1;
                if depth == 0 && placed.token == Token::Sign('}') {
                    return at + offset + 1;
                }
            }
            Token::Sign(';') if depth == 0 => return at + offset + 1,
            Token::Sign(_) | Token::Word(_) | Token::Colons => {}
        }
    }
    tokens.len()
}

/// Words and signs; comments, strings, characters and lifetimes are left out.
fn tokens(text: &str) -> Vec<Placed> {
    let letters: Vec<char> = text.chars().collect();
    let letter = |at: usize| letters.get(at).copied().unwrap_or('\0');
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < letters.len() {
        let start = at;
        match letter(at) {
            '/' if letter(at + 1) == '/' => {
                while at < letters.len() && letter(at) != '\n' {
                    at += 1;
                }
            }
            '/' if letter(at + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (letter(at), letter(at + 1)) {
                        ('/', '*') => (depth, at) = (depth + 1, at + 2),
                        ('*', '/') => (depth, at) = (depth - 1, at + 2),
                        _ => at += 1,
                    }
                    if depth == 0 || at >= letters.len() {
                        break;
                    }
                }
            }
            '"' => at = end_of_text(&letters, at, '"'),
            '\'' if letter(at + 1) == '\\' || letter(at + 2) == '\'' => {
                at = end_of_text(&letters, at, '\'');
            }
            // A lifetime, or its use.
            '\'' => at += 1,
            ':' if letter(at + 1) == ':' => {
                at += 2;
                found.push(Placed { line, token: Token::Colons });
            }
            first if is_word(first) => {
                while is_word(letter(at)) {
                    at += 1;
                }
                let word: String = letters[start..at].iter().collect();
                let hashes = (at..).take_while(|at| letter(*at) == '#').count();
                let raw = matches!(word.as_str(), "r" | "br" | "cr");
                let bytes = matches!(word.as_str(), "b" | "c");
                if raw && letter(at + hashes) == '"' {
                    at += hashes + 1;
                    let end: Vec<char> =
                        std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
                    while at < letters.len() && !letters[at..].starts_with(&end) {
                        at += 1;
                    }
                    at += end.len();
                } else if bytes && matches!(letter(at), '"' | '\'') {
                    at = end_of_text(&letters, at, letter(at));
                } else {
                    found.push(Placed { line, token: Token::Word(word) });
                }
            }
            blank if blank.is_whitespace() => at += 1,
            sign => {
                at += 1;
                found.push(Placed { line, token: Token::Sign(sign) });
            }
        }
        let end = at.min(letters.len());
        line += letters[start..end].iter().filter(|letter| **letter == '\n').count();
    }
    found
}

/// Behind the text or character whose first quote is at `at`.
fn end_of_text(letters: &[char], at: usize, quote: char) -> usize {
    let mut at = at + 1;
    while let Some(letter) = letters.get(at) {
        at += match letter {
            '\\' => 2,
            letter if *letter == quote => return at + 1,
            _ => 1,
        };
    }
    at
}
