'use strict';

// What a mail server's plugin needs to tell what happened: an emitter of declared events, a guard around its hooks, the
// parser of SMTP replies, and what events have in common. Everything else in this folder is its inside.

const { Emitter } = require('./emitter');
const { parseReply } = require('./smtp-reply');
const { eventsBySource } = require('./signals');
const { observers } = require('./observer');
const values = require('./values');

module.exports = { Emitter, eventsBySource, observers, parseReply, ...values };
