"use strict";
// The tree of clusters: nothing moves; names that the expert gave come from edits.js.
