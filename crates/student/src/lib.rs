//! Small sequential recommenders.
