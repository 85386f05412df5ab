/*
 * The JupyterLab side of jupyter-keeper: input() of a cell that another page has run.
 *
 * A module federation container written by hand (https://webpack.js.org/concepts/module-federation/),
 * so that the package needs no JavaScript build. The server repeats `keeper_input` on IOPub for
 * as long as a question is open; pages that show it already ignore that.
 */
(() => {
  'use strict';

  const MESSAGE = 'keeper_input';
  const WAITING = '.jp-OutputArea-stdin-item:not(.jp-OutputArea-stdin-hiding)';
  let shared;

  async function load(name) {
    const versions = Object.values(shared[name]);
    return (await versions[versions.length - 1].get())();
  }

  function outputArea(panel, cellId) {
    const cell = panel.content.widgets.find(widget => widget.model.id === cellId);
    return cell && !cell.isPlaceholder() ? cell.outputArea : undefined;
  }

  function ask(panel, question, answered) {
    const area = outputArea(panel, question.cell_id);
    const kernel = panel.sessionContext.session && panel.sessionContext.session.kernel;
    if (!area || !kernel || answered.has(question.id) || area.node.querySelector(WAITING)) {
      return;
    }
    const future = {
      sendInputReply: content => {
        answered.add(question.id);
        kernel.sendInputReply(content, question.parent_header);
      }
    };
    area.onInputRequest({ header: question.parent_header, content: question }, future);
  }

  function withdraw(panel, question) {
    const area = outputArea(panel, question.cell_id);
    for (const item of area ? Array.from(area.widgets) : []) {
      if (item.node.matches(WAITING)) {
        item.dispose();
      }
    }
  }

  function follow(panel) {
    const answered = new Set();
    panel.sessionContext.iopubMessage.connect((_, message) => {
      if (message.header.msg_type === MESSAGE) {
        const question = message.content;
        if (question.open) {
          ask(panel, question, answered);
        } else {
          withdraw(panel, question);
        }
      }
    });
  }

  async function createPlugin() {
    const { INotebookTracker } = await load('@jupyterlab/notebook');
    return {
      id: 'jupyter-keeper:questions',
      description: 'Puts the questions of running cells to pages that did not run them.',
      autoStart: true,
      requires: [INotebookTracker],
      activate: (app, tracker) => {
        tracker.forEach(follow);
        tracker.widgetAdded.connect((_, panel) => follow(panel));
      }
    };
  }

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB['jupyter-keeper'] = {
    init: scope => {
      shared = scope;
    },
    get: async () => {
      const plugin = await createPlugin();
      return () => ({ __esModule: true, default: plugin });
    }
  };
})();
