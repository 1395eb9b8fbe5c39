// Draw a state with WebGL2: instanced quadrilaterals, farthest first, into a half-float picture that is then shown.
function createDrawing(canvas, shaders) {
  const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false, powerPreference: "high-performance", preserveDrawingBuffer: false });
  if (!gl) return null;
  const WIDTH = 2048;
  // Eight bits are too few where fifty faint Gaussians lie over each other; without half floats the picture is a little flatter.
  const deep = gl.getExtension("EXT_color_buffer_float") || gl.getExtension("EXT_color_buffer_half_float");

  function program(name) {
    const made = gl.createProgram();
    for (const [kind, suffix] of [[gl.VERTEX_SHADER, "vert"], [gl.FRAGMENT_SHADER, "frag"]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, shaders[name + "." + suffix]);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS) && !gl.isContextLost()) throw new Error(`${name}.${suffix}: ${gl.getShaderInfoLog(shader)}`);
      gl.attachShader(made, shader);
    }
    gl.linkProgram(made);
    if (!gl.getProgramParameter(made, gl.LINK_STATUS) && !gl.isContextLost()) throw new Error(`${name}: ${gl.getProgramInfoLog(made)}`);
    const uniforms = {};
    for (let k = 0; k < gl.getProgramParameter(made, gl.ACTIVE_UNIFORMS); k++) {
      const uniform = gl.getActiveUniform(made, k).name;
      uniforms[uniform] = gl.getUniformLocation(made, uniform);
    }
    return { made, uniforms };
  }
  const splat = program("splat"), show = program("show"), line = program("line");

  // A table of floats as a texture, 2048 texels a row.
  function table(unit, format) {
    const texture = gl.createTexture();
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
    return (values, all) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      const rows = values.length / (4 * WIDTH);
      if (all) gl.texImage2D(gl.TEXTURE_2D, 0, format, WIDTH, Math.max(rows, 1), 0, gl.RGBA, gl.FLOAT, rows ? values : null);
      else if (rows) gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, WIDTH, rows, gl.RGBA, gl.FLOAT, values);
    };
  }
  const place = table(0, gl.RGBA32F), shape = table(1, gl.RGBA32F), harmonics = table(2, gl.RGBA16F);
  harmonics(new Float32Array(0), true);
  let terms = 0;

  const quad = gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, quad);
  gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
  const orderBuffer = gl.createBuffer(), lineBuffer = gl.createBuffer();
  const attribute = (target, name, buffer, width, whole) => {
    const at = gl.getAttribLocation(target.made, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(at);
    if (whole) gl.vertexAttribIPointer(at, width, gl.UNSIGNED_INT, 0, 0);
    else gl.vertexAttribPointer(at, width, gl.FLOAT, false, 0, 0);
    return at;
  };
  const splatArrays = gl.createVertexArray();
  gl.bindVertexArray(splatArrays);
  attribute(splat, "corner", quad, 2);
  gl.vertexAttribDivisor(attribute(splat, "gaussian", orderBuffer, 1, true), 1);
  const showArrays = gl.createVertexArray();
  gl.bindVertexArray(showArrays);
  attribute(show, "corner", quad, 2);
  const lineArrays = gl.createVertexArray();
  gl.bindVertexArray(lineArrays);
  attribute(line, "point", lineBuffer, 3);

  const picture = gl.createTexture(), frame = gl.createFramebuffer();
  let pictureWidth = 0, pictureHeight = 0, drawn = 0, points = 0;
  function resize(width, height) {
    if (width === pictureWidth && height === pictureHeight) return;
    [pictureWidth, pictureHeight] = [width, height];
    gl.activeTexture(gl.TEXTURE3);
    gl.bindTexture(gl.TEXTURE_2D, picture);
    if (deep) gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA16F, width, height, 0, gl.RGBA, gl.HALF_FLOAT, null);
    else gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, width, height, 0, gl.RGBA, gl.UNSIGNED_BYTE, null);
    for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, filter, gl.LINEAR);
    for (const wrap of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, wrap, gl.CLAMP_TO_EDGE);
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, picture, 0);
  }
  function aim(target, view) {
    gl.uniformMatrix4fv(target.uniforms.camera_from_world, false, view.camera_from_world);
    gl.uniform4fv(target.uniforms.lens, view.lens);
    gl.uniform2f(target.uniforms.size, view.width, view.height);
  }

  return {
    place, shape,
    harmonics(values, many) { terms = many; harmonics(values, true); },
    order(indices) {
      drawn = indices.length;
      gl.bindBuffer(gl.ARRAY_BUFFER, orderBuffer);
      gl.bufferData(gl.ARRAY_BUFFER, indices, gl.DYNAMIC_DRAW);
    },
    lines(values) {
      points = values.length / 3;
      gl.bindBuffer(gl.ARRAY_BUFFER, lineBuffer);
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    },
    // `view`: width and height in pixels, lens (fx, fy, cx, cy), camera_from_world by columns, eye; `tint` null hides the lines.
    draw(view, background, tint) {
      resize(view.width, view.height);
      gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
      gl.viewport(0, 0, view.width, view.height);
      gl.clearColor(background[0], background[1], background[2], 1);
      gl.clear(gl.COLOR_BUFFER_BIT);
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
      gl.useProgram(splat.made);
      aim(splat, view);
      gl.uniform3fv(splat.uniforms.eye, view.eye);
      gl.uniform1i(splat.uniforms.terms, terms);
      gl.uniform1i(splat.uniforms.place, 0);
      gl.uniform1i(splat.uniforms.shape, 1);
      gl.uniform1i(splat.uniforms.harmonics, 2);
      gl.bindVertexArray(splatArrays);
      if (drawn) gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, drawn);
      if (tint && points) {
        gl.useProgram(line.made);
        aim(line, view);
        gl.uniform4fv(line.uniforms.tint, tint);
        gl.bindVertexArray(lineArrays);
        gl.drawArrays(gl.LINES, 0, points);
      }
      gl.bindFramebuffer(gl.FRAMEBUFFER, null);
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.disable(gl.BLEND);
      gl.useProgram(show.made);
      gl.activeTexture(gl.TEXTURE3);
      gl.bindTexture(gl.TEXTURE_2D, picture);
      gl.uniform1i(show.uniforms.picture, 3);
      gl.bindVertexArray(showArrays);
      gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
    },
    // Wait until what was asked is drawn.
    finish() { gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)); },
  };
}
