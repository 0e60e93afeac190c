// A component that requests an address with `fetch`. It always fails, with a message that begins with `answered` and the status and text
// that it got, or with `refused` and the error that it got.

export const replicaMethod = {
  describe() {
    return {
      name: "caller-javascript",
      version: "0.1.0",
      summary: "requests an address",
      options: [{ name: "address", kind: { tag: "text" }, required: true, doc: "what it requests" }],
      needs: [],
    };
  },

  plan() {
    return { backup: "caller", tablespaces: [], buildsOnExisting: false };
  },

  async createReplica(request) {
    const address = request.options.find((option) => option.name === "address").value.val;
    throw { tag: "failed", val: await call(address) };
  },
};

async function call(address) {
  try {
    const response = await fetch(address);
    return `answered: ${response.status} ${await response.text()}`;
  } catch (error) {
    return `refused: ${error}`;
  }
}
