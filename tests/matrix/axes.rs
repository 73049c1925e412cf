//! What a row of the matrix is made of.

/// One value of each axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub transport: Transport,
    pub alias: Alias,
    pub class: Class,
    pub form: Form,
    pub token: Token,
    pub licence: Licence,
    pub policy: Policy,
}

macro_rules! axis {
    ($(#[$about:meta])* $name:ident { $($(#[$what:meta])* $value:ident,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$what])* $value,)+ }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$value,)+];
        }
    };
}

axis!(Transport {
    WebSocket,
    Polling,
    /// CONNECT by polling, `auth` on the WebSocket that takes over.
    Upgrade,
});

axis!(
    /// How the path is written.
    Alias {
        Plain,
        Version,
        VirtualPath,
        VirtualPathAndVersion,
        DoubledSlash,
        Encoded,
        DotSegments,
        /// `/doc/?EIO=4…`
        Bare,
    }
);

axis!(
    /// What the open is, for the document server.
    Class {
        Editor,
        /// May only comment: an editor as well.
        Commenter,
        LiveViewer,
        Viewer,
    }
);

axis!(
    /// How the `auth` is written.
    Form {
        Plain,
        AckId,
        Namespace,
        Escapes,
        WhiteSpace,
        BinaryEvent,
        /// In fragments with a ping between them; on polling between other packets of one body.
        Fragmented,
        /// Twice, one after the other.
        Twice,
        /// As a plain viewer first.
        ChangedClass,
        NumericUser,
        /// `mode` is given twice.
        DuplicateKey,
    }
);

axis!(Token {
    /// Neither server nor gateway knows of tokens.
    Off,
    Good,
    /// A session token, which says nothing of the mode.
    Session,
    WrongSecret,
    AlgorithmNone,
    Expired,
    Missing,
});

axis!(
    /// What the tenant's licence allows when the open arrives.
    Licence {
        Room,
        Full,
        RoomForUsers,
        FullOfUsers,
        NoLiveViewers,
        Expired,
        NotStarted,
        Revoked,
        Missing,
    }
);

axis!(
    /// Both of `over_limit` and `licence_invalid`, or `mode = "observe"`.
    Policy {
        Reject,
        View,
        Observe,
    }
);

impl Row {
    /// Class, form, licence and policy.
    pub const DECIDING: [usize; 4] = [2, 3, 5, 6];

    /// How many values each axis has.
    pub fn sizes() -> [usize; 7] {
        [
            Transport::ALL.len(),
            Alias::ALL.len(),
            Class::ALL.len(),
            Form::ALL.len(),
            Token::ALL.len(),
            Licence::ALL.len(),
            Policy::ALL.len(),
        ]
    }

    /// The row of the values at these places.
    pub fn at(places: [usize; 7]) -> Self {
        let [transport, alias, class, form, token, licence, policy] = places;
        Self {
            transport: Transport::ALL[transport],
            alias: Alias::ALL[alias],
            class: Class::ALL[class],
            form: Form::ALL[form],
            token: Token::ALL[token],
            licence: Licence::ALL[licence],
            policy: Policy::ALL[policy],
        }
    }
}
