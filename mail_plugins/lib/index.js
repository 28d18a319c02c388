'use strict';

// What a mail server's plugin needs to tell what happened: an emitter of declared events, a guard around its hooks, and
// the parser of SMTP replies. Everything else in this folder is its inside.

const { Emitter } = require('./emitter');
const { parseReply } = require('./smtp-reply');
const { eventsBySource } = require('./signals');

module.exports = { Emitter, eventsBySource, parseReply };
