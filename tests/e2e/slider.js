/** A model of Jupyter's widgets: a slider whose view the front end draws. */
function widget(name, module, state) {
  const full = {
    _model_module: module, _model_module_version: '2.0.0', _model_name: `${name}Model`,
    _view_module: module, _view_module_version: '2.0.0', _view_name: `${name}View`, ...state,
  };
  return comm.open('jupyter.widget', { state: full, buffer_paths: [] }, { metadata: { version: '2.1.0' } });
}

function slider({ value = 0, min = 0, max = 100, description = '' } = {}) {
  const layout = widget('Layout', '@jupyter-widgets/base', {});
  const state = { value, min, max, description, layout: `IPY_MODEL_${layout.id}` };
  const model = widget('IntSlider', '@jupyter-widgets/controls', state);
  const listeners = [];
  const update = (change) => model.send({ method: 'update', state: change, buffer_paths: [] });
  model.onMsg(({ data }) => {
    if (data.method === 'request_state') update(state);
    if (data.method !== 'update') return;
    Object.assign(state, data.state);
    for (const listener of listeners) listener(state.value);
  });
  return {
    get value() { return state.value; },
    set value(next) { update({ value: state.value = next }); },
    onChange(listener) { listeners.push(listener); },
    [Symbol.for('Jupyter.display')]: () => ({
      'application/vnd.jupyter.widget-view+json': {
        model_id: model.id, version_major: 2, version_minor: 0,
      },
      'text/plain': `slider at ${state.value}`,
    }),
  };
}
