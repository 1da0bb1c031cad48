// Uploads a file with tus-js-client, as its documentation shows it, and says on its output how it goes.
//
//   node upload.js '{"file": "...", "endpoint": "...", "options": {...}}'
//
// Lines of the output: "url URL" when the upload has one, "sent BYTES", at the end "done" or "failed WHY".

const fs = require('node:fs')
const { createRequire } = require('node:module')
const { PassThrough } = require('node:stream')
const tus = createRequire(process.env.TUS_JS + '/')('tus-js-client')

const { file, endpoint, options } = JSON.parse(process.argv[2])

// What it doesn't know to be a file has no length before its end.
const content = fs.createReadStream(file)
const source = options.uploadLengthDeferred ? content.pipe(new PassThrough()) : content

const upload = new tus.Upload(source, {
  endpoint,
  retryDelays: Array(40).fill(250),
  ...options,
  onUploadUrlAvailable: () => console.log('url', upload.url),
  onProgress: (sent) => console.log('sent', sent),
  onSuccess: () => console.log('done'),
  onError: (error) => {
    console.log('failed', String(error))
    process.exitCode = 1
  },
})
upload.start()
